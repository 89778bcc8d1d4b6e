"""What differs between one machine and AWS, for those who do the work: the lake, Spark, the broker, leases, secrets.

Belongs here: what the engine asks of an environment (``ports``), each environment, and the choice. Does not belong here: how a
thing works (``embedded``), what Dagster asks for (``resources``).
"""
