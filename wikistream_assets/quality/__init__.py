"""Rules as data, their measurement with Deequ, profiles, drift, and the split of rule-breaking rows.

Does not belong here: Dagster, catalogs, files, clocks, environment.
"""
