"""What could not become an event, kept with the reason and the original bytes: for a person to judge, for a later redrive."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits.tables.bronze import DEAD_LETTER


def dead_letters(parsed: DataFrame) -> DataFrame:
    """The rows of ``parsed`` that are no events, columns as in ``bronze.dead_letter``.

    Args:
        parsed: what ``streams.edits.raw_events.parse`` returned.
    """
    rejected = parsed.where(sf.col("reason").isNotNull())
    # A letter that does not tell its time is filed under the day on which Kafka got it.
    at = sf.coalesce("rejected_at", "kafka_timestamp")
    day = sf.date_from_unix_date(sf.floor(sf.unix_seconds(at) / 86_400).cast("int")).cast("string")
    return rejected.withColumn("event_date", day).select(*DEAD_LETTER.column_names)
