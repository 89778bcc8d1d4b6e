"""Gold: aggregates of whole days and hours of edits, one module per table."""
