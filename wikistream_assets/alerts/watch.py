"""What is watched by metadata alone: records waiting for Bronze, dead letters arriving, HIGH risk users in new Gold rows.

Each function takes what it saw last time and returns what to remember for the next; what to do with it is the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pyiceberg.expressions import EqualTo, In

from producer.topics import DLQ_EVENTS, EVENT_TOPICS
from wikistream_assets.alerts.kinds import Alert, AlertKind
from wikistream_assets.alerts.router import Alerts
from wikistream_assets.quality.rule import Severity
from wikistream_assets.resources.broker import Broker
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.tables import RAW_EVENTS as BRONZE
from wikistream_assets.tables import RISK_SCORES

_MINUTE: Final = 60.0
_MINUTES_OVER: Final = 2
"""So many minutes in a row have to be over the limit: one burst is none."""
_FIRST_DAYS: Final = 2
"""In a lake that no one has looked at before, HIGH risk users of so many days are news; older ones are history."""

Lag = Mapping[str, Mapping[int, int]]
"""Offsets that wait, by topic and partition. Transaction markers take up offsets too: an idle topic shows a few."""


def lag(broker: Broker, lake: Lakehouse) -> Lag:
    """How far Bronze's newest snapshot is behind the end of each partition.

    Raises:
        BrokerError: the broker does not answer.
    """
    position = lake.position(BRONZE)
    return {
        topic: {
            number: max(0, high - position.get(topic, {}).get(str(number), low))
            for number, (low, high) in broker.offsets(topic).items()
        }
        for topic in EVENT_TOPICS
    }


def watch_lag(alerts: Alerts, found: Lag, most: int) -> None:
    """Fire or clear ``lag`` for each topic: more than ``most`` offsets over all its partitions."""
    for topic, partitions in found.items():
        waiting = sum(partitions.values())
        if waiting > most:
            details = {
                "records": waiting,
                "threshold": most,
                "by partition": {str(n): v for n, v in partitions.items()},
            }
            message = f"{waiting:,} records of {topic} wait for Bronze, more than {most:,}"
            alerts.fire(Alert(AlertKind.LAG, topic, message, details))
        else:
            alerts.clear(AlertKind.LAG, topic, f"{waiting:,} records of {topic} wait for Bronze")


@dataclass(frozen=True)
class DeadLetters:
    """The running total of dead letters as it was seen.

    Attributes:
        at: seconds since the epoch.
        total: Bronze's running total.
        minutes_over: looks in a row at which the rate was over the limit.
    """

    at: float
    total: int
    minutes_over: int = 0


def watch_dead_letters(
    alerts: Alerts, lake: Lakehouse, seen: DeadLetters | None, now: float, most: float
) -> DeadLetters:
    """Fire ``dlq_rate`` when two minutes in a row brought more than ``most`` dead letters each; clear it after a better one.

    Counted in Bronze's totals, which hold the producer's and the stream's. Looking again within a minute changes nothing.
    """
    newest = lake.newest_position(BRONZE)
    total = newest.counts["total"]["dead_letters"] if newest is not None and newest.counts else 0
    if seen is None or total < seen.total:
        return DeadLetters(now, total)
    if now - seen.at < _MINUTE:
        return seen
    rate = (total - seen.total) * _MINUTE / (now - seen.at)
    over = seen.minutes_over + 1 if rate > most else 0
    if over >= _MINUTES_OVER:
        details = {"per minute": rate, "threshold": most, "total": total}
        message = f"{rate:.0f} dead letters a minute, more than {most:g}"
        alerts.fire(Alert(AlertKind.DLQ_RATE, DLQ_EVENTS, message, details))
    elif not over:
        alerts.clear(AlertKind.DLQ_RATE, DLQ_EVENTS, f"{rate:.0f} dead letters a minute")
    return DeadLetters(now, total, over)


def watch_risks(alerts: Alerts, lake: Lakehouse, seen: int | None) -> int | None:
    """Tell of each HIGH risk user of each day that Gold has written since snapshot ``seen``; each is told once.

    Returns:
        The snapshot that has been looked at.
    """
    table = lake.table(RISK_SCORES)
    head = table.current_snapshot()
    if head is None or head.snapshot_id == seen:
        return seen
    dates = _new_dates(lake, seen)
    if dates:
        high = EqualTo("risk_level", "HIGH") & In("stat_date", dates)  # type: ignore[call-arg]  # mypy misreads these
        columns = ("stat_date", "entity_id", "entity_type", "risk_score", "total_edits", "evidence")
        scan = table.scan(row_filter=high, selected_fields=columns, snapshot_id=head.snapshot_id)
        for row in sorted(scan.to_arrow().to_pylist(), key=lambda row: (row["stat_date"], -row["risk_score"])):
            alerts.fire(_risk_alert(row))
    return head.snapshot_id


def _risk_alert(row: Mapping[str, object]) -> Alert:
    user, date = row["entity_id"], row["stat_date"]
    return Alert(
        AlertKind.HIGH_RISK_USER,
        f"{date}/{user}",
        f"user {user} has risk score {row['risk_score']:g} on {date}",
        {name: row[name] for name in ("entity_type", "risk_score", "total_edits", "evidence")},
        severity=Severity.WARNING,
    )


def _new_dates(lake: Lakehouse, seen: int | None) -> list[str]:
    """The dates in which rows were written after snapshot ``seen``, from the manifests alone."""
    table = lake.table(RISK_SCORES)
    new: set[int] = set()
    known = False
    for version in lake.history(RISK_SCORES):
        if known := version.snapshot_id == seen:
            break
        new.add(version.snapshot_id)
    head = table.current_snapshot()
    manifests = head.manifests(table.io) if head else []
    dates = {
        str(entry.data_file.partition[0])
        for manifest in manifests
        if not known or manifest.added_snapshot_id in new
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        if not known or entry.snapshot_id in new
    }
    return sorted(dates) if known else sorted(dates)[-_FIRST_DAYS:]
