"""The order of Kafka's records."""

from pyspark.sql import Column
from pyspark.sql import functions as sf


def place() -> Column:
    """A record's place in its topic (partition, then offset) as one long.

    It orders and identifies the records of a topic. A hash aggregation can hold a long; a struct it cannot, and is several times
    slower.
    """
    return sf.shiftleft(sf.col("kafka_partition").cast("long"), 48) + sf.col("kafka_offset")
