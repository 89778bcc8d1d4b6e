"""When the next event of a recording is due, however wild the times in it are."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

_LOGGER = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 60.0
"""No event is waited for longer than this: a longer silence in a recording is cut to it, and a wild time costs no more."""

BACK_FOR_GOOD_EVENTS: Final = 100
"""So many events in a row from before: the recording itself has gone back in time, as two captures in one file do."""


class Pace:
    """The clock of one recording, shared by the connections that read it; it starts with the first event asked for.

    It follows the newest event time seen. Events from further back than ``LONGEST_WAIT_SECONDS`` are overdue, until there are
    ``BACK_FOR_GOOD_EVENTS`` of them in a row; a leap ahead counts as ``LONGEST_WAIT_SECONDS``. Both are logged.

    Args:
        now: a clock that never goes back, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._began = 0.0
        self._origin_ms: int | None = None
        self._newest_ms = 0
        self._back = 0

    def wait_seconds(self, sent_ms: int, speed: float) -> float:
        """How long to wait for an event; at most ``LONGEST_WAIT_SECONDS``, 0 or less if it is due.

        Args:
            sent_ms: its time, ms since 1970.
            speed: how many times as fast as recorded.
        """
        longest_ms = round(LONGEST_WAIT_SECONDS * 1000 * speed)
        with self._lock:
            if self._origin_ms is None:
                self._began, self._origin_ms, self._newest_ms = self._now(), sent_ms, sent_ms
            ahead_ms = sent_ms - self._newest_ms
            if ahead_ms < -longest_ms:
                self._back += 1
                if self._back < BACK_FOR_GOOD_EVENTS:
                    return 0.0
                self._origin_ms += ahead_ms
                _LOGGER.warning("the recording goes back to %s: its pace is kept from there on", _named(sent_ms))
                self._newest_ms = sent_ms
            elif ahead_ms > longest_ms:
                self._origin_ms += ahead_ms - longest_ms
                _LOGGER.warning(
                    "the next event is of %s, %s after the newest one: waiting %g s instead",
                    *(_named(sent_ms), _length(ahead_ms), LONGEST_WAIT_SECONDS),
                )
            self._back = 0
            self._newest_ms = max(self._newest_ms, sent_ms)
            due = self._began + (sent_ms - self._origin_ms) / 1000 / speed
        return min(LONGEST_WAIT_SECONDS, due - self._now())


def _named(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms since 1970"


def _length(milliseconds: int) -> str:
    try:
        return str(timedelta(seconds=milliseconds // 1000))
    except OverflowError:
        return f"{milliseconds} ms"
