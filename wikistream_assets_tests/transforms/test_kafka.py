"""Which records are still to be consumed."""

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.transforms.kafka import from_position

pytestmark = pytest.mark.spark


def test_what_lies_below_the_position_is_left_out(spark: SparkSession) -> None:
    records = [
        (topic, partition, offset)
        for topic in ("raw-events", "dlq-events")
        for partition in (0, 1, 11)
        for offset in (0, 6, 7, 5_000_000_000, 5_000_000_001)
    ]
    frame = spark.createDataFrame(records, "kafka_topic STRING, kafka_partition INT, kafka_offset LONG")

    def left(position: dict[str, dict[str, int]]) -> set[tuple[str, int, int]]:
        return {tuple(row) for row in from_position(frame, position).collect()}

    assert left({}) == set(records)
    assert left({"raw-events": {"0": 7, "1": 5_000_000_001}, "dlq-events": {}}) == {
        (topic, partition, offset)
        for topic, partition, offset in records
        if topic == "dlq-events"
        or partition == 11
        or (partition == 0 and offset >= 7)
        or (partition == 1 and offset == 5_000_000_001)
    }
