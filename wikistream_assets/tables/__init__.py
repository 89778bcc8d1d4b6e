"""The contract: one ``TableSpec`` per Iceberg table, with its schema, keys, partitions, lineage and quality rules.

Does not belong here: how a table is computed (``transforms``), stored (``resources``) or scheduled (``defs``).
"""

from typing import Final

from wikistream_assets.tables.bronze import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.tables.dq_audit import FAILING_ROWS, GATE_DECISIONS, PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets.tables.gold import DAILY_ANALYTICS_SUMMARY, ENTITY_TRENDS, HOURLY_STATS, RISK_SCORES
from wikistream_assets.tables.silver import CLEANED_EVENTS, QUARANTINE
from wikistream_assets.tables.spec import Column, TableSpec

ALL_TABLES: Final = (
    RAW_EVENTS,
    DEAD_LETTER,
    CLEANED_EVENTS,
    QUARANTINE,
    HOURLY_STATS,
    RISK_SCORES,
    ENTITY_TRENDS,
    DAILY_ANALYTICS_SUMMARY,
    QUALITY_RESULTS,
    PROFILE_METRICS,
    FAILING_ROWS,
    GATE_DECISIONS,
)

GOLD_TABLES: Final = (HOURLY_STATS, RISK_SCORES, ENTITY_TRENDS, DAILY_ANALYTICS_SUMMARY)

TABLE_BY_IDENTIFIER: Final = {table.identifier: table for table in ALL_TABLES}

__all__ = [
    "ALL_TABLES",
    "CLEANED_EVENTS",
    "DAILY_ANALYTICS_SUMMARY",
    "DEAD_LETTER",
    "ENTITY_TRENDS",
    "FAILING_ROWS",
    "GATE_DECISIONS",
    "GOLD_TABLES",
    "HOURLY_STATS",
    "PROFILE_METRICS",
    "QUALITY_RESULTS",
    "QUARANTINE",
    "RAW_EVENTS",
    "RISK_SCORES",
    "TABLE_BY_IDENTIFIER",
    "Column",
    "TableSpec",
]
