"""Figures for Prometheus: of the Bronze stream's process, and of the lake and the broker as they are when asked.

Names and units as Prometheus wants them: base units, ``_total`` for what only grows. ``catalogue`` lists them all, the producer's
too (``producer.metrics``). Does not belong here: who is told when a figure is bad (``alerts``).
"""
