"""The parts of ``strategies.py``: data sets and networks, choices of points, records, pictures."""
