"""Open alerts and the outbox of a home, in one SQLite file that every process of the home may use.

Each method of ``Store`` that changes something is one transaction: a process that is killed leaves all of it or none.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wikistream_assets.alerts.notice import Notice

_BUSY_SECONDS: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS open_alerts (
    kind TEXT, subject TEXT, notice TEXT NOT NULL, fired_at REAL NOT NULL, last_at REAL NOT NULL, sent_at REAL NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (kind, subject)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (kind TEXT, subject TEXT, at REAL NOT NULL, PRIMARY KEY (kind, subject)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, notice TEXT NOT NULL, made_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS channels (
    name TEXT PRIMARY KEY, failures INTEGER NOT NULL, retry_at REAL NOT NULL, error TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (channel TEXT NOT NULL, at REAL NOT NULL);
"""


@dataclass(frozen=True)
class OpenAlert:
    """An alert that has been fired and not cleared. Times are seconds since the epoch.

    Attributes:
        notice: the newest firing.
        sent_at: when it was last put into the outbox.
        count: how often it has been fired.
    """

    notice: Notice
    fired_at: float
    last_at: float
    sent_at: float
    count: int


@dataclass(frozen=True)
class Waiting:
    """A notice in the outbox."""

    id: int
    notice: Notice
    made_at: float
    attempts: int


@dataclass(frozen=True)
class ChannelState:
    """How a channel has fared.

    Attributes:
        failures: times in a row that it was down.
        retry_at: not to be tried before, seconds since the epoch.
        error: why it was down, one line.
    """

    failures: int = 0
    retry_at: float = 0.0
    error: str = ""


class Transaction:
    """What can be done within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._do = connection.execute

    # ---- open alerts ----

    def open_alert(self, kind: str, subject: str) -> OpenAlert | None:
        row = self._do(f"{_SELECT_OPEN} WHERE kind = ? AND subject = ?", (kind, subject)).fetchone()
        return _open_alert(row) if row else None

    def open_alerts(self) -> list[OpenAlert]:
        """All of them, the oldest first."""
        return [_open_alert(row) for row in self._do(f"{_SELECT_OPEN} ORDER BY fired_at, kind, subject")]

    def keep_open(self, alert: OpenAlert) -> None:
        notice = alert.notice
        self._do(
            "INSERT OR REPLACE INTO open_alerts (kind, subject, notice, fired_at, last_at, sent_at, count) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (notice.kind, notice.subject, notice.as_json(), alert.fired_at, alert.last_at, alert.sent_at, alert.count),
        )

    def close(self, kind: str, subject: str) -> None:
        self._do("DELETE FROM open_alerts WHERE kind = ? AND subject = ?", (kind, subject))

    def tell_once(self, kind: str, subject: str, now: float) -> bool:
        """Remember that it is told; returns whether it had not been."""
        done = self._do("INSERT OR IGNORE INTO told (kind, subject, at) VALUES (?, ?, ?)", (kind, subject, now))
        return done.rowcount == 1

    # ---- outbox ----

    def put(self, channel: str, notice: Notice, now: float) -> None:
        self._do("INSERT INTO outbox (channel, notice, made_at) VALUES (?, ?, ?)", (channel, notice.as_json(), now))

    def waiting(self, channel: str, due: float | None = None) -> list[Waiting]:
        """What waits for ``channel``, in order; with ``due`` only what may be sent at that time."""
        rows = self._do(
            "SELECT id, notice, made_at, attempts FROM outbox WHERE channel = ? AND not_before <= ? ORDER BY id",
            (channel, float("inf") if due is None else due),
        )
        return [Waiting(number, Notice.from_json(text), made_at, tries) for number, text, made_at, tries in rows]

    def outbox_channels(self) -> dict[str, int]:
        """How many notices wait, by channel."""
        return dict(self._do("SELECT channel, count(*) FROM outbox GROUP BY channel").fetchall())

    def remove(self, *items: Waiting) -> None:
        for item in items:
            self._do("DELETE FROM outbox WHERE id = ?", (item.id,))

    def postpone(self, item: Waiting, until: float) -> None:
        self._do("UPDATE outbox SET attempts = attempts + 1, not_before = ? WHERE id = ?", (until, item.id))

    # ---- channels ----

    def channel(self, name: str) -> ChannelState:
        row = self._do("SELECT failures, retry_at, error FROM channels WHERE name = ?", (name,)).fetchone()
        return ChannelState(*row) if row else ChannelState()

    def set_channel(self, name: str, state: ChannelState) -> None:
        self._do(
            "INSERT OR REPLACE INTO channels VALUES (?, ?, ?, ?)", (name, state.failures, state.retry_at, state.error)
        )

    def note_sent(self, channel: str, now: float) -> None:
        self._do("INSERT INTO sent (channel, at) VALUES (?, ?)", (channel, now))

    def sent_since(self, channel: str, since: float, now: float) -> int:
        """Messages that went out after ``since``; forgets older ones, and those of a clock that has been set back since."""
        self._do("DELETE FROM sent WHERE channel = ? AND NOT (at > ? AND at <= ?)", (channel, since, now))
        return int(self._do("SELECT count(*) FROM sent WHERE channel = ?", (channel,)).fetchone()[0])

    def forget_told(self, before: float) -> None:
        self._do("DELETE FROM told WHERE at < ?", (before,))

    def forget_told_of_days(self, kind: str, before: str) -> None:
        """Forget what was told of days before ``before``, of a kind whose subjects begin with the day."""
        self._do("DELETE FROM told WHERE kind = ? AND substr(subject, 1, 10) < ?", (kind, before))


class Store:
    """The file. Holds no connection between calls, so that it may be used after a fork and from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Everything in the block happens or nothing does; other writers wait.

        Raises:
            sqlite3.Error: the file cannot be used, or another process holds it for too long.
        """
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)


_SELECT_OPEN: Final = "SELECT notice, fired_at, last_at, sent_at, count FROM open_alerts"


def _open_alert(row: tuple[str, float, float, float, int]) -> OpenAlert:
    return OpenAlert(Notice.from_json(row[0]), *row[1:])
