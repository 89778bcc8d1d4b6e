"""What the sensors decide, as plain functions of what they saw, and what they need of a stream's supervisor.

Does not belong here: Dagster, clocks, the lake; the sensors themselves (``defs/ops``), a supervisor (``embedded``).
"""
