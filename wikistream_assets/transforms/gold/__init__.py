"""Gold: aggregates of whole days and hours."""
