"""What ranks agree on: selections, tables, and collectives that cannot hang."""
