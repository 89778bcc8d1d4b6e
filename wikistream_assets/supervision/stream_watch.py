"""Is the continuous Bronze stream getting on, and if not, what is to be done about it.

A stream that has nothing to do looks like one that is stuck: both commit nothing. They are told apart by what waits in Kafka, and
a quiet source is told from a dead one by the producer's cursor, which moves with every event it receives, canaries included.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from producer.cursor import RecordedGap
from wikistream_assets.settings import Settings
from wikistream_assets.supervision.stream_control import StreamState


class Verdict(StrEnum):
    """How the stream is."""

    FRESH = "fresh"
    """It commits, or has just had nothing to commit."""
    QUIET = "quiet"
    """Nothing to commit: the source sends, but nothing for us."""
    SOURCE_SILENT = "source_silent"
    """Nothing to commit, and the producer has received nothing for long, not even a canary."""
    STALLED = "stalled"
    """Records wait in Kafka and none is committed."""
    UNMANAGED = "unmanaged"
    """No stream is kept running for this lake: whoever wants rows drains."""


class Step(StrEnum):
    """What to do about a stalled stream."""

    NOTHING = "nothing"
    RESTART = "restart"
    GIVE_UP = "give_up"


@dataclass(frozen=True)
class Seen:
    """What one look at the stream found.

    Attributes:
        now: when.
        snapshot_id / committed_at: Bronze's newest position and its commit time; None before the first.
        lag: whether Kafka holds committed records that Bronze does not.
        source_at: when the producer last committed something it had received, canaries included; None before the first.
        stream: what its keeper says.
        gaps / gaps_total: the newest gaps that the producer has noticed in this source, oldest first; how many there were.
    """

    now: datetime
    snapshot_id: int | None
    committed_at: datetime | None
    lag: bool
    source_at: datetime | None
    stream: StreamState
    gaps: tuple[RecordedGap, ...] = ()
    gaps_total: int = 0


@dataclass(frozen=True)
class Memory:
    """What is kept from one look to the next, as a sensor's cursor.

    Attributes:
        reported: newest Bronze snapshot that has been reported to Dagster.
        waiting_on / waiting_since: since when records have been waiting behind which newest snapshot.
        instance: the stream's process, as it was seen last; None if the next one is no news.
        revived_at: when its keeper was seen to have started it again, until it commits.
        tries / tried_at: starts in a row that have not helped, and the last restart.
        given_up: they have been given up.
        gaps_told: how many of the source's gaps have been told.
        reported_at: when ``reported`` was committed; None in the cursor of an older version.
    """

    reported: int | None = None
    waiting_on: int | None = None
    waiting_since: datetime | None = None
    instance: str | None = None
    revived_at: datetime | None = None
    tries: int = 0
    tried_at: datetime | None = None
    given_up: bool = False
    gaps_told: int = 0
    reported_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        moments = {
            name: datetime.fromisoformat(document[name]) if document.get(name) else None
            for name in ("waiting_since", "revived_at", "tried_at", "reported_at")
        }
        return cls(**{**document, **moments})


def remember(memory: Memory, seen: Seen) -> Memory:
    """Note since when records have been waiting without a commit, and whether the stream has been started again."""
    instance = seen.stream.instance
    if instance is not None and instance != memory.instance:
        revived = memory.instance is not None and seen.stream.died is not None
        in_vain = revived and seen.lag and (memory.revived_at is not None or memory.tries > 0)
        memory = replace(
            memory,
            instance=instance,
            revived_at=seen.now if revived else memory.revived_at,
            tries=memory.tries + in_vain,
        )
    if not seen.lag:
        return replace(memory, waiting_on=None, waiting_since=None)
    if memory.waiting_since is None or memory.waiting_on != seen.snapshot_id:
        return replace(memory, waiting_on=seen.snapshot_id, waiting_since=seen.now)
    return memory


def judge(memory: Memory, seen: Seen, settings: Settings) -> Verdict:
    """How the stream is, from a look and from what ``remember`` made of the looks before."""
    if seen.stream.instance is None and seen.stream.since is None:
        return Verdict.UNMANAGED
    if seen.lag:
        # a process that has just been started reads its jars and its place first
        waiting_since = max(filter(None, (memory.waiting_since, seen.stream.since)), default=seen.now)
        stuck = seen.now - waiting_since >= timedelta(seconds=settings.bronze_stall_seconds)
        # one that dies as often as it is started is always young
        dies = memory.revived_at == seen.now and memory.tries >= settings.stream_restart_tries
        return Verdict.STALLED if stuck or dies else Verdict.FRESH
    if source_is_silent(seen, settings):
        return Verdict.SOURCE_SILENT
    fresh = timedelta(seconds=settings.bronze_fresh_seconds)
    return Verdict.FRESH if seen.committed_at and seen.now - seen.committed_at < fresh else Verdict.QUIET


def source_is_silent(seen: Seen, settings: Settings) -> bool:
    """Whether the producer has received nothing for too long, whatever still waits for Bronze.

    One that has never received anything is given that time from the stream's start on.
    """
    since = seen.source_at or seen.stream.since
    return bool(since and seen.now - since >= timedelta(seconds=settings.source_silent_seconds))


def next_step(memory: Memory, now: datetime, settings: Settings) -> Step:
    """What to do about a stalled stream: restarts further and further apart, then a person."""
    if memory.given_up:
        return Step.NOTHING
    if memory.tries >= settings.stream_restart_tries:
        return Step.GIVE_UP
    pause = timedelta(seconds=settings.bronze_stall_seconds * 2**memory.tries)
    if memory.tries and memory.tried_at and now - memory.tried_at < pause:
        return Step.NOTHING
    return Step.RESTART


def tried(memory: Memory, now: datetime) -> Memory:
    """Note a restart: the time of waiting begins anew, and the next instance is expected."""
    return replace(memory, tries=memory.tries + 1, tried_at=now, waiting_since=None, instance=None)


def recovered(memory: Memory) -> Memory:
    """Note that the stream commits again."""
    return replace(memory, revived_at=None, tries=0, tried_at=None, given_up=False)
