"""Kafka to Bronze: each record read once, every event as received, and what cannot become an event told apart with its reason.

The producer has judged each event by its contract already. Bronze asks only for what a row cannot do without (id, domain, type,
time) and trusts no one for that: a record that lacks it, whoever wrote it to the topic, becomes a dead letter. A field that has
another type than the schema says is null, the row and its payload stay: the gate's checks see it, nothing is lost.
"""

from datetime import datetime
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from producer.contract import Reason
from producer.envelope import EVENT_DDL, REJECTED_DDL
from producer.times import DATE_TIME, EARLIEST_EVENT, MAX_AHEAD
from producer.topics import DLQ_EVENTS
from wikistream_assets.transforms.instants import hour_of_day, instant

UNREADABLE_ENVELOPE: Final = "unreadable_envelope"
"""The record's value is not what the producer writes; the other reasons are those of ``producer.contract.Reason``."""

_CORRUPT: Final = "_corrupt_record"
_EVENT_DDL: Final = (
    "meta STRUCT<id: STRING, domain: STRING, dt: STRING, schema_uri: STRING>, `$schema` STRING, id BIGINT, type STRING, "
    "namespace INT, title STRING, title_url STRING, comment STRING, timestamp BIGINT, user STRING, bot BOOLEAN, "
    "length STRUCT<old: INT, new: INT>, revision STRUCT<old: BIGINT, new: BIGINT>, server_name STRING, wiki STRING"
)
"""The fields of an event that become columns; from_json passes over all others without building them."""

_LATEST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in seconds since 1970; what lies beyond is no time and would overflow a timestamp."""

_DAY_SECONDS: Final = 86_400
_WHOLE_DATE_TIME: Final = rf"^(?:{DATE_TIME})\z"
"""``$`` would let a line end behind it pass."""

_DETAILS: Final = {
    UNREADABLE_ENVELOPE: "the record's value is not the JSON object that the producer writes",
    Reason.NOT_JSON: "the envelope's data is not JSON",
    Reason.NOT_OBJECT: "the envelope's data is not a JSON object",
    Reason.MISSING_ID: "meta.id is absent, null or empty",
    Reason.MISSING_DOMAIN: "meta.domain is absent, null or empty",
    Reason.MISSING_TYPE: "type is absent, null or empty",
    Reason.MISSING_TIME: "neither timestamp nor meta.dt",
    Reason.WRONG_TYPE: "timestamp is no whole number of 64 bits",
    Reason.INVALID_TIME: "timestamp or meta.dt is no time between 2001-01-15 and the year 9999",
    Reason.FUTURE_TIME: f"the event's time is more than {MAX_AHEAD} ahead of the time at which Kafka got it",
}


def parse(records: DataFrame) -> DataFrame:
    """Read Kafka records of ``raw-events`` and ``dlq-events``, one row for each.

    Args:
        records: columns of Spark's Kafka source, of a batch or a stream: value (binary), topic, partition, offset, timestamp.

    Returns:
        The columns of ``bronze.raw_events``, and reason, detail, original (base64), attempts and rejected_at, which are all null
        in the rows that are events; ``reason`` is not null in those that are not. What depends on the time of processing is for
        ``stamp`` to add.
    """
    # Three projections, each JSON text parsed in exactly one of them: Spark does not merge a projection into the next one where
    # an expensive expression would be repeated for each field taken from it.
    opened = records.select(
        sf.col("topic").alias("kafka_topic"),
        sf.col("partition").alias("kafka_partition"),
        sf.col("offset").alias("kafka_offset"),
        sf.col("timestamp").alias("kafka_timestamp"),
        "value",
        sf.when(~_is_letter("topic"), _json("value", EVENT_DDL)).alias("envelope"),
        sf.when(_is_letter("topic"), _json("value", REJECTED_DDL)).alias("letter"),
    )
    read = opened.withColumn("event", _json("envelope.data", _EVENT_DDL))
    read = read.withColumn("dt", _date_time("event.meta.dt")).withColumn("at", _event_time())
    judged = read.withColumn("reason", _reason())
    columns = {**_event_columns(), **_rejection_columns()}
    return judged.select(*(column.alias(name) for name, column in columns.items()))


def stamp(parsed: DataFrame, processed_at: datetime) -> DataFrame:
    """Add to a batch of what ``parse`` returned when it was processed: ``bronze_processed_at``; ``rejected_at`` of Bronze's own.

    Apart from ``parse``, which is the same for every batch: a stream builds and compiles that once.
    """
    rejects = sf.col("reason").isNotNull() & ~_is_letter("kafka_topic")
    return parsed.withColumns(
        {
            "bronze_processed_at": instant(processed_at),
            "rejected_at": sf.when(rejects, instant(processed_at)).otherwise(sf.col("rejected_at")),
        }
    )


def _json(column: str, ddl: str) -> Column:
    return sf.from_json(sf.col(column).cast("string"), f"{ddl}, {_CORRUPT} STRING")


def _is_letter(topic: str) -> Column:
    return sf.col(topic) == DLQ_EVENTS


def _date_time(column: str) -> Column:
    """The language of ``producer.times``: Spark's cast alone reads "2021" and "12:30" too, but no small letters."""
    text = sf.col(column)
    return sf.when(text.rlike(_WHOLE_DATE_TIME), sf.upper(text).cast("timestamp"))


def _event_time() -> Column:
    seconds = sf.col("event.timestamp")
    from_seconds = sf.when(seconds.between(0, _LATEST_SECOND), sf.timestamp_seconds(seconds))
    return sf.when(seconds.isNotNull(), from_seconds).otherwise(sf.col("dt"))


def _reason() -> Column:
    """The first thing that keeps a record from being an event; null if nothing does."""
    data = sf.col("envelope.data")
    # from_json keeps what it could read of a field of the wrong type, but also of a text that breaks off inside a nested object:
    # only a second reader, asked about corrupt records alone, tells the two apart.
    corrupt = sf.col("event").isNull() | sf.col(f"event.{_CORRUPT}").isNotNull()
    no_json = corrupt & sf.get_json_object(data, "$").isNull()
    no_object = corrupt & ~sf.ltrim(data).startswith("{")
    timestamp = sf.col("event.timestamp")
    unreadable_dt = sf.col("event.meta.dt").isNotNull() & sf.col("dt").isNull()
    # of a record that was copied here without its time nothing can be said
    received_at = sf.when(sf.col("kafka_timestamp") >= instant(EARLIEST_EVENT), sf.col("kafka_timestamp"))
    absent = {
        Reason.MISSING_ID: _empty("event.meta.id"),
        Reason.MISSING_DOMAIN: _empty("event.meta.domain"),
        Reason.MISSING_TYPE: _empty("event.type"),
        Reason.WRONG_TYPE: corrupt & timestamp.isNull() & sf.get_json_object(data, "$.timestamp").isNotNull(),
        Reason.MISSING_TIME: timestamp.isNull() & sf.col("event.meta.dt").isNull(),
        Reason.INVALID_TIME: unreadable_dt | sf.col("at").isNull() | (sf.col("at") < instant(EARLIEST_EVENT)),
        Reason.FUTURE_TIME: sf.col("at") > received_at + sf.lit(MAX_AHEAD),
    }
    reason = (
        sf.when(_is_letter("kafka_topic"), sf.coalesce("letter.reason", sf.lit(UNREADABLE_ENVELOPE)))
        .when(data.isNull() | sf.col(f"envelope.{_CORRUPT}").isNotNull(), UNREADABLE_ENVELOPE)
        .when(no_json, Reason.NOT_JSON.value)
        .when(no_object, Reason.NOT_OBJECT.value)
    )
    for name, condition in absent.items():
        reason = reason.when(condition, name.value)
    return reason


def _empty(column: str) -> Column:
    return sf.col(column).isNull() | (sf.col(column) == "")


def _event_columns() -> dict[str, Column]:
    def event(field: str) -> Column:
        return sf.col(f"event.{field}")

    seconds = sf.unix_seconds("at")
    # A new page has no length.old: it was 0, otherwise a quarter of the bytes added would be missing.
    old = event("length.old")
    length_was = sf.when(event("type") == "new", sf.coalesce(old, sf.lit(0))).otherwise(old)
    return {
        "event_id": event("meta.id"),
        **{name: sf.col(name) for name in ("kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp")},
        "rc_id": event("id"),
        "event_type": event("type"),
        "namespace": event("namespace"),
        "domain": event("meta.domain"),
        **{name: event(name) for name in ("title", "title_url", "user")},
        "is_bot": event("bot"),
        **{name: event(name) for name in ("comment", "wiki", "server_name")},
        "length_old": old,
        "length_new": event("length.new"),
        "length_delta": event("length.new") - length_was,
        "revision_old": event("revision.old"),
        "revision_new": event("revision.new"),
        "event_timestamp": sf.col("at"),
        "producer_ingested_at": sf.col("envelope._processing.ingested_at").cast("timestamp"),
        "event_date": sf.date_from_unix_date(sf.floor(seconds / _DAY_SECONDS).cast("int")).cast("string"),
        "event_hour": hour_of_day(sf.col("at")),
        # Until 2019 it stood in meta, e.g. mediawiki/recentchange/2.
        "schema_version": sf.coalesce(event("$schema"), event("meta.schema_uri")),
        "payload": sf.col("envelope.data"),
        "source_mode": sf.coalesce("envelope._processing.source_mode", "letter.source_mode"),
    }


def _rejection_columns() -> dict[str, Column]:
    """The producer's own words for what it rejected, Bronze's for what Bronze could not read; null in rows that are events."""
    reason = sf.col("reason")
    details = sf.create_map(*(sf.lit(str(text)) for pair in _DETAILS.items() for text in pair))
    columns = {
        "detail": sf.coalesce("letter.detail", details[reason]),
        # Spark's base64 breaks lines, as in an e-mail.
        "original": sf.coalesce("letter.original", sf.translate(sf.base64("value"), "\r\n", "")),
        "attempts": sf.coalesce("letter.attempts", "envelope._processing.attempts", sf.lit(0)),
        "rejected_at": sf.col("letter.rejected_at").cast("timestamp"),
    }
    return {"reason": reason, **{name: sf.when(reason.isNotNull(), column) for name, column in columns.items()}}
