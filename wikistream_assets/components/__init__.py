"""From our values to Dagster's: a contract becomes an asset, a gate's report becomes check results and materializations.

Belongs here: translation only. Does not belong here: what runs and when (``defs``).
"""
