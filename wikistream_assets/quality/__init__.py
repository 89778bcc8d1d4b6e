"""Rules as data, their measurement with Deequ, profiles, drift, expectations of
volume and mix, and the quarantine's budget.

Does not belong here: Dagster, catalogs, files, clocks, environment.
"""
