"""Who is told when something needs a person."""

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """Something a person should know.

    Attributes:
        kind: what happened, e.g. ``gate_failed``.
        subject: what it happened to, e.g. a table's ``namespace.name``.
        message: one sentence.
        details: figures and failing keys; JSON-serialisable.
        run_id: the run in which it happened.
    """

    kind: str
    subject: str
    message: str
    details: dict[str, object]
    run_id: str


class Notifier(Protocol):
    """A channel for alerts."""

    def notify(self, alert: Alert) -> None:
        """Deliver ``alert``."""


class LogNotifier:
    """The local channel: one line in the log, and one JSON line in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def notify(self, alert: Alert) -> None:
        _LOG.error("%s: %s: %s", alert.kind, alert.subject, alert.message)
        line = json.dumps({"at": datetime.now(UTC).isoformat(), **asdict(alert)}, ensure_ascii=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
