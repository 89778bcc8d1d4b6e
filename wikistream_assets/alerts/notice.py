"""One thing to send: what a channel gets, and how it reads as text."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from wikistream_assets.alerts.kinds import Alert
from wikistream_assets.text.printable import printable

MAX_VALUE: Final = 400
"""Characters of a detail's value in a message; the log channel has all of it."""
MAX_ITEMS: Final = 10
"""Entries of a list (failing keys) in a message."""
MAX_TEXT: Final = 500
"""Characters of a subject or a sentence."""


class Event(StrEnum):
    """What has become of an alert."""

    FIRED = "fired"
    REPEATED = "repeated"
    CLEARED = "cleared"
    DIGEST = "digest"
    """Several notices in one, because there were too many."""


@dataclass(frozen=True)
class Notice:
    """What is sent.

    Attributes:
        at: ISO 8601, UTC.
        count: how often the alert has been fired since it opened.
        url: the run in the UI.
    """

    event: Event
    at: str
    kind: str
    subject: str
    severity: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    count: int = 1
    url: str | None = None

    @classmethod
    def of(cls, event: Event, alert: Alert, now: float, count: int, url: str | None) -> "Notice":
        """The notice about ``alert`` at ``now``, seconds since the epoch."""
        return cls(
            event=event,
            at=_iso(now),
            kind=str(alert.kind),
            subject=alert.subject,
            severity=str(alert.severity),
            message=alert.message,
            details=dict(alert.details),
            run_id=alert.run_id,
            count=count,
            url=url,
        )

    @classmethod
    def digest(cls, notices: "list[Notice]", now: float) -> "Notice":
        """One notice in place of many; names the first few and counts the rest by kind."""
        kinds: dict[str, int] = {}
        for notice in notices:
            name = f"{notice.kind} {notice.event}"
            kinds[name] = kinds.get(name, 0) + 1
        counted = ", ".join(f"{number} {name}" for name, number in sorted(kinds.items(), key=lambda item: -item[1]))
        return cls(
            event=Event.DIGEST,
            at=_iso(now),
            kind="digest",
            subject=f"{len(notices)} alerts",
            severity=max((notice.severity for notice in notices), key=lambda severity: severity == "ERROR"),
            message=f"{len(notices)} alerts were held back by the rate limit: {counted}; see 'wikistream alerts list'",
            details={
                f"{notice.kind} {notice.event}: {notice.subject}": notice.message for notice in notices[:MAX_ITEMS]
            },
        )

    def repeated(self, now: float) -> "Notice":
        """The same, said again at ``now``, seconds since the epoch."""
        return replace(self, event=Event.REPEATED, at=_iso(now))

    @classmethod
    def from_json(cls, text: str) -> "Notice":
        """The inverse of ``as_json``."""
        fields = json.loads(text)
        return cls(**{**fields, "event": Event(fields["event"])})

    def as_json(self) -> str:
        """One line of ASCII."""
        return json.dumps(asdict(self), ensure_ascii=True, default=str)

    @property
    def title(self) -> str:
        """One short line; nothing in it can be obeyed by a terminal or end a mail's header."""
        times = f" (x{self.count})" if self.event is Event.REPEATED and self.count > 1 else ""
        return f"[{self.severity if self.event is not Event.CLEARED else 'OK'}] {self.event.upper()} {self.kind}: " + (
            _short(self.subject, MAX_TEXT) + times
        )

    @property
    def text(self) -> str:
        """The sentence, the figures, the link: several lines of plain text, each printable."""
        lines = [_short(self.message, MAX_TEXT)]
        lines += [
            f"{_short(name, MAX_TEXT)}: {_short(_plain(value), MAX_VALUE)}" for name, value in self.details.items()
        ]
        if self.event is Event.REPEATED:
            lines.append(f"fired {self.count} times since it opened")
        if self.url:
            lines.append(f"run: {self.url}")
        return "\n".join([*lines, f"at {self.at}"])

    def cleared(self, message: str, now: float) -> "Notice":
        """The notice that this alert is over."""
        return replace(self, event=Event.CLEARED, at=_iso(now), message=message or "is over")


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def _short(text: str, most: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        more = len(value) - MAX_ITEMS
        return ", ".join(_plain(item) for item in value[:MAX_ITEMS]) + (f" and {more} more" if more > 0 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
