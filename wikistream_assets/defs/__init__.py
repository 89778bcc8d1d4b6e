"""Everything that Dagster shows: assets, checks, jobs, sensors and schedules, one folder per layer and ``ops`` for the rest.

Belongs here: what runs, when, and behind which gate. Does not belong here: how it is done; a body is a few lines.
"""
