"""Figures for Prometheus about the lake and the broker, as they are when asked; ``catalogue`` lists these and all others.

Names and units as Prometheus wants them: base units, ``_total`` for what only grows. Does not belong here: the figures of a
process (``engine.stream_metrics``, ``producer.metrics``), who is told when one is bad (``alerts``).
"""
