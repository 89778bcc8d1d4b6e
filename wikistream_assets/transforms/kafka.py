"""The order of Kafka's records."""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf


def place() -> Column:
    """A record's place in its topic (partition, then offset) as one long.

    It orders and identifies the records of a topic. A hash aggregation can hold a long; a struct it cannot, and is several times
    slower.
    """
    return sf.shiftleft(sf.col("kafka_partition").cast("long"), 48) + sf.col("kafka_offset")


def from_position(records: DataFrame, position: Mapping[str, Mapping[str, int]]) -> DataFrame:
    """Leave out the records below ``position``: they have been consumed before.

    Args:
        records: with columns kafka_topic, kafka_partition, kafka_offset.
        position: next offset to consume, by topic and partition; of a partition that is not named nothing has been consumed.
    """
    offsets = [
        sf.lit(value)
        for topic, partitions in position.items()
        for number, next_offset in partitions.items()
        for value in (f"{topic}-{number}", next_offset)
    ]
    if not offsets:
        return records
    # A map, though comparisons would be plainer: Spark would compile their numbers into its code, anew for each batch.
    partition = sf.concat_ws("-", "kafka_topic", sf.col("kafka_partition").cast("string"))
    return records.where(sf.col("kafka_offset") >= sf.coalesce(sf.create_map(*offsets)[partition], sf.lit(0)))
