"""Readers of the edits: one event through every layer, a day in figures, the queries of the use cases."""
