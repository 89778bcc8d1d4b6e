"""A client of the broker: topics, offsets, what waits.

Does not belong here: the embedded broker's process (``embedded``), who writes to Kafka (``producer``).
"""
