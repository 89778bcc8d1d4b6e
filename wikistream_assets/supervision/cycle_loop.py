"""When the next cycle is due: one after the other, never two at once, and none behind a failure that wants a person."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from wikistream_assets.settings import Settings


class Ended(StrEnum):
    """How a cycle ended."""

    PASSED = "passed"
    BLOCKED = "blocked"
    """A gate closed: the data is kept back, the machinery is sound."""
    BROKEN = "broken"
    """A step broke, or the run was cancelled, by its time limit or by a person."""
    DELAYED = "delayed"
    """The clock was behind the lake's newest commit: the loop goes on when it is not any more."""
    KILLED = "killed"
    """Its process is gone, and Dagster, which would have started it again, could not: the loop does."""


@dataclass(frozen=True)
class Last:
    """The newest cycle that has ended.

    Attributes:
        run_id: its run.
        ended: how.
        at: when.
        seconds: how long it took; None if it never started.
    """

    run_id: str
    ended: Ended
    at: datetime
    seconds: float | None = None


@dataclass(frozen=True)
class Due:
    """A decision: start a cycle under this key now, or, if it is None, not, for this reason."""

    key: str | None
    why: str


def due(
    now: datetime,
    *,
    running: str | None,
    last: Last | None,
    first_data_at: datetime | None,
    pending: bool,
    settings: Settings,
) -> Due:
    """Decide about the next cycle.

    Args:
        now: the clock.
        running: a cycle that is queued or at work.
        last: the newest cycle that has ended; None before the first.
        first_data_at: commit time of Bronze's first rows; None before.
        pending: whether a layer has something to audit or to build.
        settings: intervals.

    Returns:
        A key that names the cycle before: whoever decides twice starts one.
    """
    if running:
        return Due(None, f"cycle {running} is not done yet")
    if first_data_at is None:
        return Due(None, "Bronze is empty: nothing has arrived yet")
    if last is None:
        wait = first_data_at + timedelta(seconds=settings.cycle_first_seconds) - now
        return _after(wait, "cycle-first", "the first cycle")
    if last.ended is Ended.BROKEN:
        return Due(
            None, f"run {last.run_id} failed or was cancelled: see its error, then start 'cycle' by hand to go on"
        )
    if last.ended is Ended.BLOCKED and settings.cycle_after_failed_gate == "stop":
        return Due(
            None, f"a gate closed in run {last.run_id}: see 'wikistream gate status', then start 'cycle' by hand"
        )
    if not pending:
        return Due(None, "nothing new since the last cycle")
    pause = settings.cycle_blocked_seconds if last.ended is Ended.BLOCKED else settings.cycle_pause_seconds
    return _after(last.at + timedelta(seconds=pause) - now, f"cycle-after-{last.run_id}", "the next cycle")


def _after(wait: timedelta, key: str, what: str) -> Due:
    if wait > timedelta(0):
        return Due(None, f"{what} is due in {wait.total_seconds():.0f} s")
    return Due(key, what)
