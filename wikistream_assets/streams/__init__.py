"""The declared streams: for each its tables, its rules, and how its rows are computed; ``registry`` lists them all.

Belongs here: what is true of one stream's data. Does not belong here: how any stream is read, audited and published (``engine``),
sessions, clocks, paths, environment.
"""
