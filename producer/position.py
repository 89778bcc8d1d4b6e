"""Positions in an EventStreams stream: what the ``id:`` of a frame says, and whether something is missing after a resume.

An id is a JSON array with one entry for each topic and partition, e.g.
``[{"topic":"eqiad.mediawiki.recentchange","partition":0,"offset":-1},{"topic":"codfw.mediawiki.recentchange","partition":0,
"timestamp":1630070417001}]``: the data centre in charge with an offset or a timestamp, the other one with offset -1.
"""

from dataclasses import dataclass
from typing import Final

import orjson

RESUME_OVERLAP_MS: Final = 1_000
"""How far a timestamp is set back before it is sent as ``Last-Event-ID``, ms.

EventStreams gives ids of ``timestamp + 1``, and many events share one timestamp (67 ids in 1,950 events of 2021), so resuming at
the id itself may leave out the rest of that second. Set back, the first event at or after the position is the last one received
or an earlier one: events come twice, which ``meta.id`` tells, but none is left out.
"""

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one topic and partition stands. Exactly one of the two is known; offset -1 means that nothing was read from it."""

    offset: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that the server no longer had: everything between two positions, both as ``id:`` texts.

    ``after`` is a time (ISO 8601) where no position but a time was asked for.
    """

    after: str
    before: str


def parse(event_id: str) -> dict[_Key, Place]:
    """Read an id.

    Raises:
        ValueError: it is not of the form that EventStreams documents.
    """
    try:
        return {(entry["topic"], entry["partition"]): _place(entry) for entry in orjson.loads(event_id)}
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not an EventStreams id: {event_id[:200]!r} ({error})") from None


def resume_id(event_id: str) -> str:
    """The ``Last-Event-ID`` that continues after ``event_id`` without leaving anything out."""
    entries = orjson.loads(event_id)
    for entry in entries:
        if "timestamp" in entry:
            entry["timestamp"] -= RESUME_OVERLAP_MS
    return orjson.dumps(entries).decode()


def gap_between(last: str, first: str, tolerance_ms: int) -> Gap | None:
    """Tell whether events are missing between the last one before a resume and the first one after it.

    Args:
        last: id of the last event before.
        first: id of the first event after.
        tolerance_ms: for timestamps, which do not count events: a longer silence is taken for a loss, ms.
    """
    before, after = parse(last), parse(first)
    for key, place in after.items():
        known = before.get(key)
        if known is None:
            continue
        if known.offset is not None and place.offset is not None:
            missing = known.offset >= 0 and place.offset > known.offset + 1
        elif known.timestamp_ms is not None and place.timestamp_ms is not None:
            missing = place.timestamp_ms - known.timestamp_ms > tolerance_ms
        else:
            missing = False  # the data centre in charge changed: its position has no relation to the old one
        if missing:
            return Gap(after=last, before=first)
    return None


def _place(entry: dict[str, object]) -> Place:
    offset, timestamp = entry.get("offset"), entry.get("timestamp")
    if isinstance(timestamp, int):
        return Place(timestamp_ms=timestamp)
    if isinstance(offset, int):
        return Place(offset=offset)
    raise KeyError("offset or timestamp")
