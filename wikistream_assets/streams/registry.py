"""The declared streams, and what they have together: the tables of a lake."""

from collections.abc import Mapping
from typing import Final

from wikistream_assets.streams.declaration import Stream
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.tables.dq_audit import AUDIT_TRAIL_TABLES
from wikistream_assets.tables.spec import TableSpec

STREAMS: Final[Mapping[str, Stream]] = {stream.name: stream for stream in (EDITS,)}

ALL_TABLES: Final = (*(spec for stream in STREAMS.values() for spec in stream.tables), *AUDIT_TRAIL_TABLES)

TABLE_BY_IDENTIFIER: Final = {table.identifier: table for table in ALL_TABLES}


def stream_of(spec: TableSpec) -> Stream:
    """The stream that the table belongs to. Raises KeyError for the audit trail's, which all streams share."""
    for stream in STREAMS.values():
        if spec in stream.tables:
            return stream
    raise KeyError(spec.identifier)
