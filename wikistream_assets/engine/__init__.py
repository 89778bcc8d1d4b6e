"""Write, audit, publish: what brings rows from Kafka to Gold. It takes a session and a lake, and knows nothing of Dagster.

Belongs here: what every cycle does. Does not belong here: how a table's rows are computed (``streams``), what is done to tables
besides (``upkeep``).
"""
