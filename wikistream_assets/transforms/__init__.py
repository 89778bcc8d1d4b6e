"""Expressions that any stream may need: instants, Kafka's columns, text. DataFrame in, DataFrame out.

Does not belong here: what only one stream means (``streams``), sessions, clocks, paths, environment.
"""
