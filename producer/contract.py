"""The event contract: what a line of the stream must be to become an event, and the one reason why it is not.

The contract asks for what the tables are made of and nothing more, so that all published versions of
``mediawiki/recentchange`` pass (2019's ``meta.schema_uri`` up to 2026's millisecond ``meta.dt``): unknown fields are ignored,
a field that is absent stays absent, and nothing is invented, least of all an id.

Decisions are taken in this order: size, JSON, canary, contract, domain. A canary is recognised as soon as ``meta.domain``
can be read, because a heartbeat is never a defect of the data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from producer import times
from producer.times import EARLIEST_EVENT, MAX_AHEAD
from producer.wikis import CANARY_DOMAIN

_DETAIL_CHARS: Final = 300


class Reason(StrEnum):
    """Why a line was rejected; ``reason`` of the dead letter. The first that applies, in this order."""

    OVERSIZED = "oversized"
    """More bytes than ``max_event_bytes``."""
    NOT_JSON = "not_json"
    """Not UTF-8, or not JSON as RFC 8259 has it."""
    NOT_OBJECT = "not_object"
    """JSON, but not an object."""
    MISSING_ID = "missing_id"
    """``meta.id`` absent, null or empty."""
    MISSING_DOMAIN = "missing_domain"
    """``meta.domain`` absent, null or empty."""
    MISSING_TYPE = "missing_type"
    """``type`` absent, null or empty."""
    MISSING_TIME = "missing_time"
    """Neither ``timestamp`` nor ``meta.dt``."""
    WRONG_TYPE = "wrong_type"
    """A field of the contract has another JSON type than the published schema says, or is out of its column's range."""
    INVALID_TIME = "invalid_time"
    """``timestamp`` or ``meta.dt`` is no time, or lies before 2001-01-15."""
    FUTURE_TIME = "future_time"
    """The event's time is more than 24 hours ahead of the clock."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event for ``raw-events``."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A dead letter: the reason class and, for a person, what exactly was wrong."""

    reason: Reason
    detail: str


class Skipped(StrEnum):
    """Counted, never stored."""

    CANARY = "canary"
    FILTERED = "filtered"


Verdict = Accepted | Rejected | Skipped

_Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Meta(_Part):
    id: str
    domain: str
    dt: str | None = None


class _Length(_Part):
    old: _Int32 | None = None
    new: _Int32 | None = None


class _Revision(_Part):
    old: _Int64 | None = None
    new: _Int64 | None = None


class _Event(_Part):
    """The fields that become columns, with the JSON types of the published schemas; all but three may be absent."""

    meta: _Meta
    type: str | _Int64
    timestamp: _Int64 | None = None
    id: _Int64 | None = None
    namespace: _Int32 | None = None
    title: str | None = None
    title_url: str | None = None
    user: str | None = None
    bot: bool | None = None
    comment: str | None = None
    wiki: str | None = None
    server_name: str | None = None
    length: _Length | None = None
    revision: _Revision | None = None


_validate: Callable[[object], _Event] = TypeAdapter(_Event).validator.validate_python


class Contract:
    """Judges one line after the other; it holds no state but its settings.

    Args:
        domains: the followed domains; None follows all.
        max_event_bytes: larger events are rejected, bytes.
        now: the clock, for events from the future.
    """

    def __init__(
        self,
        domains: frozenset[str] | None,
        max_event_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._domains = domains
        self._max_bytes = max_event_bytes
        self._now = now
        self._latest = 0.0

    def judge(self, line: str | bytes) -> Verdict:
        """Decide what becomes of one line of the stream (the ``data`` of one SSE frame)."""
        size = _size_if_over(line, self._max_bytes)
        if size:
            return Rejected(Reason.OVERSIZED, f"{size} bytes, the limit is {self._max_bytes}")
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return Rejected(Reason.NOT_JSON, str(error)[:_DETAIL_CHARS])
        if not isinstance(document, dict):
            return Rejected(Reason.NOT_OBJECT, f"a JSON {_json_type(document)}")
        meta = document.get("meta")
        domain = meta.get("domain") if isinstance(meta, dict) else None
        if domain == CANARY_DOMAIN:
            return Skipped.CANARY
        rejected = _missing(document, meta) or self._invalid(document)
        if rejected:
            return rejected
        if self._domains is not None and domain not in self._domains:
            return Skipped.FILTERED
        return Accepted(meta["id"])  # type: ignore[index]  # a valid event has a meta object

    def _invalid(self, document: dict[str, Any]) -> Rejected | None:
        try:
            event = _validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"] if part in _FIELD_NAMES)
            return Rejected(Reason.WRONG_TYPE, f"{field}: {first['msg']}, got {first['input']!r}"[:_DETAIL_CHARS])
        seconds: float | None = event.timestamp
        if event.meta.dt is not None:
            try:
                from_dt = times.parse(event.meta.dt)
            except ValueError as error:
                return Rejected(Reason.INVALID_TIME, f"meta.dt is {error}"[:_DETAIL_CHARS])
            if seconds is None:
                seconds = from_dt.timestamp()
        assert seconds is not None  # noqa: S101  # _missing() has rejected events without any time
        if seconds < EARLIEST_EVENT.timestamp():
            return Rejected(Reason.INVALID_TIME, f"{seconds} s since 1970 lies before {EARLIEST_EVENT:%Y-%m-%d}")
        if seconds > self._latest and seconds > self._advance_clock():
            return Rejected(Reason.FUTURE_TIME, f"{seconds} s since 1970 is more than {MAX_AHEAD} ahead")
        return None

    def _advance_clock(self) -> float:
        """Latest time accepted now, s since 1970. Asked only when an event lies beyond the last answer: the clock only rises."""
        self._latest = (self._now() + MAX_AHEAD).timestamp()
        return self._latest


_FIELD_NAMES: Final = frozenset(name for model in (_Event, _Meta, _Length, _Revision) for name in model.model_fields)


def _missing(document: dict[str, Any], meta: object) -> Rejected | None:
    """The first required field that is absent, null or empty. A field of the wrong type is not missing."""
    if meta is None:
        return Rejected(Reason.MISSING_ID, "no meta object")
    if not isinstance(meta, dict):
        return Rejected(Reason.WRONG_TYPE, f"meta is a JSON {_json_type(meta)}, not an object")
    if meta.get("id") in (None, ""):
        return Rejected(Reason.MISSING_ID, "meta.id is absent, null or empty")
    if meta.get("domain") in (None, ""):
        return Rejected(Reason.MISSING_DOMAIN, "meta.domain is absent, null or empty")
    if document.get("type") in (None, ""):
        return Rejected(Reason.MISSING_TYPE, "type is absent, null or empty")
    if document.get("timestamp") is None and meta.get("dt") is None:
        return Rejected(Reason.MISSING_TIME, "neither timestamp nor meta.dt")
    return None


def _size_if_over(line: str | bytes, limit: int) -> int:
    """Bytes of ``line`` as UTF-8 if more than ``limit``, else 0. A character has at most 4 bytes: most lines need no encoding."""
    if len(line) * 4 <= limit:
        return 0
    size = len(line.encode()) if isinstance(line, str) else len(line)
    return size if size > limit else 0


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}.get(type(value), "object")
