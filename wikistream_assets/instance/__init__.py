"""The Dagster instance of a home: its history, its launcher, worker, code server and UI.

Belongs here: how Dagster itself runs; ``dagster_private`` alone imports what Dagster does not publish. Does not belong here:
what it runs (``defs``).
"""
