"""The edits of Wikimedia's wikis, as the engine sees them."""

from typing import Final

from producer.topics import DLQ_EVENTS, EVENT_TOPICS
from wikistream_assets.streams.declaration import Append, Function, Ingest, Mask, Publication, Recompute, Stream
from wikistream_assets.streams.edits.rules.bronze import EVENT_TIMELINESS, PARITY_KAFKA_BRONZE
from wikistream_assets.streams.edits.rules.silver import PARITY_BRONZE_SILVER
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DEAD_LETTER,
    ENTITY_TRENDS,
    GOLD_TABLES,
    QUARANTINE,
    RAW_EVENTS,
    RISK_SCORES,
)


def _in(module: str) -> Function:
    """``module:function`` of this package."""
    return Function(f"{__package__}.{module}")


SILVER: Final = Publication(
    layer="silver",
    source=RAW_EVENTS,
    tables=(CLEANED_EVENTS, QUARANTINE),
    build=Append(
        _in("cleaned_events:split"),
        set_aside="quarantine_processed_at",
        parity=PARITY_BRONZE_SILVER,
        accepted_with={
            "duplicate_event_id": ("event_id_unique", "kafka_position_unique"),
            "missing_user": ("user_completeness",),
            "missing_title": ("title_completeness",),
            "unknown_event_type": ("event_type_valid",),
        },
    ),
)

GOLD: Final = Publication(
    layer="gold",
    source=SILVER,
    tables=GOLD_TABLES,
    build=Recompute(
        _in("gold.together:computed"),
        reads=_in("gold.bursts:dates_before"),
        read_by=_in("gold.bursts:dates_after"),
        parities=_in("parity:parities"),
    ),
)

EDITS: Final = Stream(
    name="edits",
    ingest=Ingest(
        table=RAW_EVENTS,
        dead_letters=DEAD_LETTER,
        topics=EVENT_TOPICS,
        letter_topic=DLQ_EVENTS,
        parse=_in("raw_events:parse"),
        stamp=_in("raw_events:stamp"),
        letters=_in("dead_letter:dead_letters"),
        parity=PARITY_KAFKA_BRONZE,
        on_nothing={
            EVENT_TIMELINESS: "no live event in the range: replayed and synthetic events are old by nature and not timed"
        },
    ),
    publications=(SILVER, GOLD),
    masks={
        RAW_EVENTS: Mask(_in("masks:mask_bronze")),
        DEAD_LETTER: Mask(_in("masks:mask_dead_letters")),
        CLEANED_EVENTS: Mask(_in("masks:mask_cleaned")),
        QUARANTINE: Mask(_in("masks:mask_cleaned")),
        RISK_SCORES: Mask(_in("masks:mask_scores")),
        ENTITY_TRENDS: Mask(_in("masks:mask_trends"), told_by=CLEANED_EVENTS),
    },
)
