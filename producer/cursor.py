"""The cursor of a source: how far it has been read and what has been counted on the way, one JSON record in ``sse-cursor``.

It is written in the transaction of the events it covers, so position, counts and events never disagree, whatever is killed
when. Its key is the identity of the source: a position is never sent to another one.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

import orjson

from producer.position import Gap

MAX_GAPS: Final = 100
"""Gaps kept in the record; ``gaps_total`` counts all."""

GAP_TOLD: Final = timedelta(days=1)
"""For so long whoever looks is told of a gap."""


@dataclass
class Counters:
    """What became of the received lines: ``received = accepted + filtered + canary + sum(dead_lettered)``.

    A redelivered event counts as accepted each time; who reads ``raw-events`` tells them apart by id.
    """

    received: int = 0
    accepted: int = 0
    filtered: int = 0
    canary: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Self) -> "Counters":
        return Counters(
            received=self.received + other.received,
            accepted=self.accepted + other.accepted,
            filtered=self.filtered + other.filtered,
            canary=self.canary + other.canary,
            dead_lettered=self.dead_lettered + other.dead_lettered,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "received": self.received,
            "accepted": self.accepted,
            "filtered": self.filtered,
            "canary": self.canary,
            "dead_lettered": dict(sorted(self.dead_lettered.items())),
        }


@dataclass(frozen=True)
class RecordedGap:
    """A gap and when it was noticed (ISO 8601, UTC)."""

    gap: Gap
    detected_at: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"after": self.gap.after, "before": self.gap.before, "detected_at": self.detected_at}


@dataclass(frozen=True)
class Cursor:
    """One record.

    Attributes:
        position: ``id:`` of the last event covered; None before the first.
        counters: of all events of this source up to there, over all runs.
        gaps: the newest gaps.
        gaps_total: how many there were.
        updated_at: when it was written, ISO 8601, UTC.
    """

    position: str | None = None
    counters: Counters = field(default_factory=Counters)
    gaps: tuple[RecordedGap, ...] = ()
    gaps_total: int = 0
    updated_at: str = ""

    def advanced(self, position: str, counted: Counters, gaps: tuple[RecordedGap, ...], updated_at: str) -> "Cursor":
        """The cursor after one more batch."""
        return Cursor(
            position=position,
            counters=self.counters + counted,
            gaps=(self.gaps + gaps)[-MAX_GAPS:],
            gaps_total=self.gaps_total + len(gaps),
            updated_at=updated_at,
        )

    def gaps_since(self, moment: datetime) -> list[RecordedGap]:
        """The kept gaps that were noticed after ``moment``, oldest first."""
        return [gap for gap in self.gaps if datetime.fromisoformat(gap.detected_at) > moment]

    def to_json(self) -> bytes:
        """The record's value."""
        return orjson.dumps(
            {
                "position": self.position,
                "counters": self.counters.as_dict(),
                "gaps": [gap.as_dict() for gap in self.gaps],
                "gaps_total": self.gaps_total,
                "updated_at": self.updated_at,
            }
        )

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Read a record's value."""
        document = orjson.loads(value)
        counters = document["counters"]
        return cls(
            position=document["position"],
            counters=Counters(**{**counters, "dead_lettered": Counter(counters["dead_lettered"])}),
            gaps=tuple(RecordedGap(Gap(gap["after"], gap["before"]), gap["detected_at"]) for gap in document["gaps"]),
            gaps_total=document["gaps_total"],
            updated_at=document["updated_at"],
        )
