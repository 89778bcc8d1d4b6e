"""The contracts of the edits: one ``TableSpec`` per Iceberg table, with its schema, keys, partitions, lineage and rules."""

from typing import Final

from wikistream_assets.streams.edits.tables.bronze import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.streams.edits.tables.gold import (
    DAILY_ANALYTICS_SUMMARY,
    ENTITY_TRENDS,
    HOURLY_STATS,
    RISK_SCORES,
)
from wikistream_assets.streams.edits.tables.silver import CLEANED_EVENTS, QUARANTINE

GOLD_TABLES: Final = (HOURLY_STATS, RISK_SCORES, ENTITY_TRENDS, DAILY_ANALYTICS_SUMMARY)

__all__ = [
    "CLEANED_EVENTS",
    "DAILY_ANALYTICS_SUMMARY",
    "DEAD_LETTER",
    "ENTITY_TRENDS",
    "GOLD_TABLES",
    "HOURLY_STATS",
    "QUARANTINE",
    "RAW_EVENTS",
    "RISK_SCORES",
]
