"""What is watched by metadata alone: records waiting for Bronze, events late in Bronze, tables that are stale, dead letters
arriving, the producer's processor time.

Each function takes what it saw last time and returns what to remember for the next; what to do with it is the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wikistream_assets.alerts.kinds import Alert
from wikistream_assets.alerts.router import Alerts
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.rule import Severity
from wikistream_assets.settings import AlertKind
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.tables.spec import TableSpec

_MINUTE: Final = 60.0
_SAMPLES_OVER: Final = 2
"""Consecutive samples that must exceed the limit. A single burst, such as after a restart, does not count."""
_CPU_MOST: Final = 0.8
"""Share of a processor: what the original WikiStream on AWS alarms at."""
_LATE_SECONDS: Final = 300.0
"""How long events must be late. A single batch, such as after a restart, does not count."""

Lag = Mapping[str, Mapping[int, int]]
"""Offsets that wait, by topic and partition. Transaction markers take up offsets too: an idle topic shows a few."""


def lag(broker: Broker, lake: Lakehouse, stream: Stream) -> Lag:
    """How far Bronze's newest snapshot is behind the end of each partition.

    Raises:
        BrokerError: the broker does not answer.
    """
    broker.refuse_absent()
    position = lake.state(stream.raw).position
    return {
        topic: {
            number: max(0, high - position.get(topic, {}).get(str(number), low))
            for number, (low, high) in broker.offsets(topic).items()
        }
        for topic in stream.ingest.topics
    }


def watch_lag(alerts: Alerts, found: Lag, most: int, seen: Mapping[str, int]) -> dict[str, int]:
    """Fire ``lag`` for a topic when two looks in a row found more than ``most`` offsets over all its partitions.

    Cleared by one look that finds no more. ``seen`` is how many looks in a row have found more, by topic, and what is returned
    for the next look.
    """
    looks_over = {}
    for topic, partitions in found.items():
        waiting = sum(partitions.values())
        looks_over[topic] = seen.get(topic, 0) + 1 if waiting > most else 0
        if looks_over[topic] >= _SAMPLES_OVER:
            details = {
                "records": waiting,
                "threshold": most,
                "by partition": {str(n): v for n, v in partitions.items()},
            }
            message = f"{waiting:,} records of {topic} wait for Bronze, more than {most:,}"
            alerts.fire(Alert(AlertKind.LAG, topic, message, details))
        elif not looks_over[topic]:
            alerts.clear(AlertKind.LAG, topic, f"{waiting:,} records of {topic} wait for Bronze")
    return looks_over


@dataclass(frozen=True)
class Late:
    """Batches of Bronze that were late, with none in time seen between them.

    Attributes:
        since: when the first of them was seen, seconds since the epoch.
        snapshot_id: the newest of them; None in the memory of an older version.
    """

    since: float
    snapshot_id: int | None


def watch_latency(
    alerts: Alerts, lake: Lakehouse, raw: TableSpec, seen: Late | None, now: float, most: float
) -> Late | None:
    """Fire ``latency`` when Bronze's batches have had a 95th percentile of more than ``most`` seconds for five minutes.

    It takes a batch that came after these minutes: an old one that is still the newest says nothing about them. Cleared by a
    batch that is in time. ``seen`` are the late ones so far, and what is returned for the next look.
    """
    newest = lake.state(raw).newest_batch
    if newest is None or (seen is not None and newest.snapshot_id == seen.snapshot_id):
        return seen
    milliseconds = (newest.counts or {}).get("lag_ms", {}).get("p95")
    if milliseconds is None:  # a batch without events
        return seen
    late = milliseconds / 1000
    if late <= most:
        alerts.clear(AlertKind.LATENCY, raw.identifier, f"events reach Bronze within {late:.0f} s")
        return None
    since = now if seen is None else seen.since
    if now - since >= _LATE_SECONDS:
        message = f"for five minutes events have reached Bronze late, now by {late:.0f} s, more than {most:g} s"
        details = {"p95 seconds": late, "threshold": most}
        alerts.fire(Alert(AlertKind.LATENCY, raw.identifier, message, details, severity=Severity.WARNING))
    return Late(since, newest.snapshot_id)


class Idle(StrEnum):
    """Why nothing new is to be had for a table."""

    QUIET = "the source is heard, but has nothing for us"
    ENDED = "the capture has been read to its end"


@dataclass(frozen=True)
class Stale:
    """A table that is older than its freshness policy allows.

    Attributes:
        told: with which severity that is told; None while it is not.
        idle_at: when nothing new was to be had for it, by the newest such look, seconds since the epoch; None if by none.
    """

    told: str | None = None
    idle_at: float | None = None


def watch_stale(alerts: Alerts, table: str, idle: Idle | None, seen: Stale, now: float, most: float) -> Stale:
    """Fire ``freshness`` for a stale table: an error, but a warning where nothing new is to be had for it.

    What comes after that is given the ``most`` seconds that the policy allows before the warning becomes an error. Nothing is
    told where a capture has been read to its end: it is meant to have one.

    Args:
        idle: why nothing new is to be had; None if something is, or if nobody knows.
        seen: what was returned by the look before.
    """
    if idle is Idle.ENDED:
        if seen.told:
            alerts.clear(AlertKind.FRESHNESS, table, idle)
        return Stale(None, now)
    seen = Stale(seen.told, now if idle else seen.idle_at)
    if idle:
        severity = Severity.WARNING
    elif seen.idle_at is None or now - seen.idle_at >= most:
        severity = Severity.ERROR
    else:
        return seen
    if severity != seen.told:
        message = f"{table} is older than its freshness policy allows" + (f": {idle}" if idle else "")
        alerts.fire(Alert(AlertKind.FRESHNESS, table, message, severity=severity))
    return Stale(severity, seen.idle_at)


@dataclass(frozen=True)
class Growth:
    """A running total as it was seen.

    Attributes:
        at: seconds since the epoch.
        total: what it was then.
        looks_over: looks in a row at which it had grown faster than it may.
    """

    at: float
    total: float
    looks_over: int = 0

    @property
    def over(self) -> bool:
        """It has grown too fast for long enough."""
        return self.looks_over >= _SAMPLES_OVER


def _growth(seen: Growth | None, total: float, now: float, seconds: float, most: float) -> tuple[Growth, float | None]:
    """Look again after so many ``seconds``; return what to remember, and the growth a second, None if it is no time to look."""
    if seen is None or total < seen.total:  # counted from 0 again, as after a restart
        return Growth(now, total), None
    if now - seen.at < seconds:
        return seen, None
    rate = (total - seen.total) / (now - seen.at)
    return Growth(now, total, seen.looks_over + 1 if rate > most else 0), rate


def watch_dead_letters(
    alerts: Alerts, lake: Lakehouse, stream: Stream, seen: Growth | None, now: float, most: float
) -> Growth:
    """Fire ``dlq_rate`` when two minutes in a row brought more than ``most`` dead letters each; clear it after a better one.

    Counted in Bronze's totals, which hold the producer's and the stream's. Looking again within a minute changes nothing.
    """
    newest, letters = lake.state(stream.raw).newest_position(), stream.ingest.letter_topic
    total = newest.counts["total"]["dead_letters"] if newest is not None and newest.counts else 0
    found, rate = _growth(seen, total, now, _MINUTE, most / _MINUTE)
    if rate is not None:
        said = f"{rate * _MINUTE:.0f} dead letters a minute"
        if found.over:
            details = {"per minute": rate * _MINUTE, "threshold": most, "total": total}
            alerts.fire(Alert(AlertKind.DLQ_RATE, letters, f"{said}, more than {most:g}", details))
        elif not found.looks_over:
            alerts.clear(AlertKind.DLQ_RATE, letters, said)
    return found


def watch_cpu(alerts: Alerts, program: str, spent: float, seen: Growth | None, now: float, seconds: float) -> Growth:
    """Fire ``producer_cpu`` when ``spent``, a program's processor seconds, grew by more than 80 % of the time, twice in a row.

    Cleared after a better look; looking again within ``seconds`` changes nothing.
    """
    found, rate = _growth(seen, spent, now, seconds, _CPU_MOST)
    if rate is not None:
        said = f"the {program} used {rate:.0%} of a processor"
        if found.over:
            details = {"share": rate, "threshold": _CPU_MOST}
            message = f"{said}, more than {_CPU_MOST:.0%}"
            alerts.fire(Alert(AlertKind.PRODUCER_CPU, program, message, details, severity=Severity.WARNING))
        elif not found.looks_over:
            alerts.clear(AlertKind.PRODUCER_CPU, program, said)
    return found
