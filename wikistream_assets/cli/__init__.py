"""The wikistream console script."""
