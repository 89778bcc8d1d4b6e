"""The whole pipeline with real processes."""
