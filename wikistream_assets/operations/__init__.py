"""What the sensors decide, as plain functions of what they saw: no Dagster, no clock, no lake. Sensors are in ``defs/ops``."""
