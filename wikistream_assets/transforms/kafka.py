"""Kafka's records: their order, and which of them are new."""

from collections.abc import Collection, Mapping

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


def first_places(parsed: DataFrame, known_ids: DataFrame) -> DataFrame:
    """Where the events are that the raw table does not have yet: one row for each new ``event_id``, in column ``place``.

    Args:
        parsed: rows with ``event_id``, their place in Kafka, and ``reason``, which is null in those that are events.
        known_ids: column event_id: the events that the table already holds in the hours that ``parsed`` touches. A redelivered
            event has the time it had before, so no other hour can hold it.

    Returns:
        Column place (long): of several records with the same event_id the first in order of partition and offset.
    """
    ids = parsed.where(sf.col("reason").isNull()).select("event_id", place().alias("place"))
    # The batch is small and known, the hours' history may be long: broadcast the batch, scan the history once, shuffle neither.
    hits = known_ids.join(sf.broadcast(ids.select("event_id")), "event_id", "left_semi")
    firsts = ids.groupBy("event_id").agg(sf.min("place").alias("place"))
    return firsts.join(sf.broadcast(hits), "event_id", "left_anti").select("place")


def at_places(parsed: DataFrame, places: DataFrame, columns: Collection[str]) -> DataFrame:
    """The events of ``parsed`` whose records stand at ``places`` (of ``first_places``), with these columns."""
    placed = parsed.where(sf.col("reason").isNull()).withColumn("place", place())
    return placed.join(sf.broadcast(places), "place", "left_semi").select(*columns)
