"""Positions in an EventStreams stream: what the ``id:`` of a frame says, and whether something is missing after a resume.

An id is a JSON array with one entry for each topic and partition, e.g.
``[{"topic":"eqiad.mediawiki.recentchange","partition":0,"offset":-1},{"topic":"codfw.mediawiki.recentchange","partition":0,
"timestamp":1630070417001}]``: the data centre in charge with an offset or a timestamp, the other one with offset -1.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

RESUME_OVERLAP_MS: Final = 1_000
"""How far a timestamp is set back before it is sent as ``Last-Event-ID``, ms.

EventStreams gives ids of ``timestamp + 1``, and many events share one timestamp (67 ids in 1,950 events of 2021), so resuming at
the id itself may leave out the rest of that second. Set back, the first event at or after the position is the last one received
or an earlier one: events come twice, which ``meta.id`` tells, but none is left out.
"""

_LONGEST: Final = 8_192
"""Characters of an id. It is sent as a header, and servers refuse longer ones."""

_PARTITIONS: Final = 2**31
_OFFSETS: Final = 2**63
_END_MS: Final = 253_402_300_800_000
"""The end of the year 9999."""

_Key = tuple[str, int]


class Place(NamedTuple):
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
    """Read an id. ``resume_id`` can go on from all that this accepts.

    Raises:
        ValueError: it is not of the form that EventStreams documents.
    """
    try:
        if len(event_id) > _LONGEST:
            raise ValueError(f"{len(event_id)} characters")
        places = dict(map(_entry, orjson.loads(event_id)))
        if not places:
            raise ValueError("no entry")
        return places
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an EventStreams id: {event_id[:200]!r} ({error})") from None


def resume_id(event_id: str) -> str:
    """The ``Last-Event-ID`` that continues after ``event_id`` without leaving anything out; ASCII, as a header has to be.

    Raises:
        ValueError: as ``parse``.
    """
    entries = [
        {"topic": topic, "partition": partition, **_resumed(place)}
        for (topic, partition), place in parse(event_id).items()
    ]
    return json.dumps(entries, separators=(",", ":"))


def gap_between(last: str, first: str, tolerance_ms: int, unplaced: int = 0) -> Gap | None:
    """Tell whether events are missing between the last one before a resume and the first one after it.

    Args:
        last: id of the last event before.
        first: id of the first event after.
        tolerance_ms: for timestamps, which do not count events: a longer silence is taken for a loss, ms.
        unplaced: events that came between the two and had no id.
    """
    before, after = parse(last), parse(first)
    for key, place in after.items():
        known = before.get(key)
        if known is None:
            continue
        if known.offset is not None and place.offset is not None:
            missing = known.offset >= 0 and place.offset > known.offset + 1 + unplaced
        elif known.timestamp_ms is not None and place.timestamp_ms is not None:
            missing = place.timestamp_ms - known.timestamp_ms > tolerance_ms
        else:
            missing = False  # the data centre in charge changed: its position has no relation to the old one
        if missing:
            return Gap(after=last, before=first)
    return None


def _entry(entry: Any) -> tuple[_Key, Place]:
    key = (entry["topic"], entry["partition"])
    if type(key[0]) is not str or not _is_number(key[1], 0, _PARTITIONS):
        raise ValueError("topic and partition")
    if "timestamp" in entry:
        if not _is_number(entry["timestamp"], RESUME_OVERLAP_MS, _END_MS):
            raise ValueError("timestamp")
        return key, Place(timestamp_ms=entry["timestamp"])
    if not _is_number(entry["offset"], -1, _OFFSETS):
        raise ValueError("offset")
    return key, Place(offset=entry["offset"])


def _is_number(value: object, least: int, end: int) -> bool:
    return type(value) is int and least <= value < end  # isinstance would let true and false pass


def _resumed(place: Place) -> dict[str, int | None]:
    if place.timestamp_ms is None:
        return {"offset": place.offset}
    return {"timestamp": place.timestamp_ms - RESUME_OVERLAP_MS}
