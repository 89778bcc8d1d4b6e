"""One machine: the home, its leases, its Spark session, its broker, and supervisord, which keeps everything running.

Belongs here: what takes the place of a service elsewhere. Does not belong here: what would serve any program (``machine``).
"""
