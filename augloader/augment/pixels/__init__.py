"""Operations on the rows of a batch, one operation and one magnitude a row."""
