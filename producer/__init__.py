"""EventStreams (SSE) -> Kafka: the ingest side of WikiStream, deployable on its own.

Belongs here: reading EventStreams, the event contract, the followed wikis, the Kafka topics' names, and the project's own
EventStreams server. Does not belong here: Spark, Iceberg, Dagster, or anything that imports them.
"""

__version__ = "0.2.0"
