"""The declared streams, and what they have together: the tables of a lake."""

from typing import Final

from wikistream_assets.streams.edits.tables import EDITS_TABLES
from wikistream_assets.tables.dq_audit import FAILING_ROWS, GATE_DECISIONS, PROFILE_METRICS, QUALITY_RESULTS

EDITS: Final = "edits"
STREAMS: Final = (EDITS,)

ALL_TABLES: Final = (*EDITS_TABLES, QUALITY_RESULTS, PROFILE_METRICS, FAILING_ROWS, GATE_DECISIONS)

TABLE_BY_IDENTIFIER: Final = {table.identifier: table for table in ALL_TABLES}
