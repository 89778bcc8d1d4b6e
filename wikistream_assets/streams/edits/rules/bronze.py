"""Rules of the Bronze gate: is what was received complete, well-formed, received once, and received in time?

"The captures" are six public recordings of the stream (2014 to 2021; 92,834 distinct events).
"""

from typing import Final

from wikistream_assets.quality.rule import Basis, Dimension, Holds, Rule, Severity
from wikistream_assets.quality.shapes import (
    computed,
    event_date_valid,
    every,
    mostly_present,
    not_null,
    sql_list,
    unique,
)

EVENT_TIMELINESS: Final = "event_timeliness"
NO_FUTURE_TIMESTAMPS: Final = "no_future_timestamps"
PARITY_KAFKA_BRONZE: Final = "parity_kafka_bronze"

KAFKA_PLACE: Final = ("kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp")
"""What tells one record of Kafka from all others, also from those of topics that are no more."""

SOURCE_MODES: Final = ("live", "replay", "synthetic")
KNOWN_SCHEMAS: Final = (
    "mediawiki/recentchange/1",
    "mediawiki/recentchange/2",
    "/mediawiki/recentchange/1.0.0",
    "/mediawiki/recentchange/1.0.1",
)
"""Versions of the stream's schema, as its events name them: in ``meta.schema_uri`` up to 2019, in ``$schema`` since."""

NAMED_EVENT_TYPES: Final = ("edit", "new", "log", "categorize", "external")

_PRODUCER_REFUSES = (
    "an event without it is a dead letter, never a Bronze row; null in 0 of 92,834 events of the captures"
)
_OPTIONAL_FIELD = "decision: the stream may omit it; measured: null or empty in 0 of 92,834 events of the captures"

RAW_EVENTS_RULES: Final[tuple[Rule, ...]] = (
    not_null("event_id", _PRODUCER_REFUSES),
    not_null("event_type", _PRODUCER_REFUSES),
    not_null("domain", _PRODUCER_REFUSES),
    not_null("event_timestamp", _PRODUCER_REFUSES),
    not_null(
        "payload", "decision: Bronze keeps every event exactly as received, so that anything can be derived again"
    ),
    mostly_present("title", 0.95, _OPTIONAL_FIELD),
    mostly_present("user", 0.95, _OPTIONAL_FIELD),
    mostly_present("wiki", 0.95, _OPTIONAL_FIELD),
    every(
        "lineage_complete",
        Dimension.COMPLETENESS,
        "Every row says which Kafka record it came from and when the producer and the stream handled it.",
        "kafka_topic IS NOT NULL AND kafka_partition IS NOT NULL AND kafka_offset IS NOT NULL"
        " AND kafka_timestamp IS NOT NULL AND producer_ingested_at IS NOT NULL AND bronze_processed_at IS NOT NULL",
        "decision: without its position a row can neither be traced nor counted in the parity with Kafka",
    ),
    every(
        "event_type_valid",
        Dimension.VALIDITY,
        f"event_type is one of {', '.join(NAMED_EVENT_TYPES)}, or a number.",
        f"event_type IN {sql_list(NAMED_EVENT_TYPES)} OR event_type RLIKE '^[0-9]+$'",
        "schema recentchange 1.0.1 allows a number; measured: '142' in 2 of 1,950 and 3 of 2,571 events, nothing else unnamed",
        where="event_type IS NOT NULL",
    ),
    every(
        "event_hour_valid",
        Dimension.VALIDITY,
        "event_hour is 0-23 and the UTC hour of event_timestamp.",
        "event_hour BETWEEN 0 AND 23 AND event_hour = pmod(floor(unix_seconds(event_timestamp) / 3600), 24)",
        "decision: it is a partition column, a wrong hour hides the row from every hourly read",
        where="event_timestamp IS NOT NULL",
    ),
    event_date_valid(),
    Rule(
        name="schema_version_known",
        dimension=Dimension.VALIDITY,
        description=f"schema_version, if there is one, is one of {', '.join(KNOWN_SCHEMAS)}.",
        measure=Holds(f"schema_version IN {sql_list(KNOWN_SCHEMAS)}", where="schema_version IS NOT NULL"),
        threshold=1.0,
        because="these are the versions published so far; measured: all events of the captures are of 1.0.0. A warning: a newer"
        " one is read as far as it is known and kept whole, and somebody should look at what it changes",
        severity=Severity.WARNING,
    ),
    every(
        "source_mode_valid",
        Dimension.VALIDITY,
        f"source_mode is one of {', '.join(SOURCE_MODES)}.",
        f"source_mode IN {sql_list(SOURCE_MODES)}",
        "decision: timeliness is judged on live events only, so the mode must be known",
    ),
    unique(
        "kafka_position_unique",
        KAFKA_PLACE,
        "decision: a repeated position means two writers or a batch written twice; Iceberg lets both appends through. A record's"
        " time goes with it, so it tells such a repetition from the offsets of a topic that was made anew after a loss",
    ),
    unique(
        "event_id_unique",
        ("event_id",),
        "redeliveries are removed by event_id within the event's hour; measured: 0 of 92,834 ids of the captures come with two"
        " times (46 redeliveries keep theirs), so nothing below 100 % is expected",
    ),
    Rule(
        name=EVENT_TIMELINESS,
        dimension=Dimension.TIMELINESS,
        description="At least 95 % of the live events are in Bronze within 180 seconds of the change.",
        measure=Holds(
            "bronze_processed_at <= event_timestamp + INTERVAL 180 SECONDS",
            where="source_mode = 'live' AND event_timestamp IS NOT NULL AND bronze_processed_at IS NOT NULL",
        ),
        threshold=0.95,
        because="the service level of the pipeline (3 minutes, 95 %); measured on streams of 2025 and 2026: an event is sent"
        " 0.6-6.1 s after the change. A warning: late data is not wrong data. Replayed and synthetic events are old by nature",
        severity=Severity.WARNING,
        basis=Basis.RATIO,
    ),
    Rule(
        name=NO_FUTURE_TIMESTAMPS,
        dimension=Dimension.TIMELINESS,
        description="No event is dated more than 60 seconds after the producer received it.",
        measure=Holds(
            "event_timestamp <= producer_ingested_at + INTERVAL 60 SECONDS",
            where="event_timestamp IS NOT NULL AND producer_ingested_at IS NOT NULL",
        ),
        threshold=1.0,
        because="decision: a minute covers the skew of kept clocks; a clock further ahead would fill hours still to come."
        " Its own check: lateness must not be averaged with its opposite",
        severity=Severity.WARNING,
    ),
    computed(
        PARITY_KAFKA_BRONZE,
        Dimension.CONSISTENCY,
        "Records read from Kafka = Bronze rows + dead letters + duplicates, over the whole life of the table.",
        "decision: every record read is accounted for; the running totals stand in Bronze's snapshot summaries",
    ),
)
