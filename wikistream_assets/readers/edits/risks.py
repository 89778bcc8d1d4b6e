"""Users at HIGH risk in what Gold has newly written: an alert for each."""

from collections.abc import Mapping
from typing import Final

from pyiceberg.expressions import EqualTo, In

from wikistream_assets.alerts import Alert, AlertKind, Alerts
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.rule import Severity
from wikistream_assets.streams.edits.tables import RISK_SCORES

_FIRST_DAYS: Final = 2
"""In a lake that no one has looked at before, HIGH risk users of this many days are news; older ones are history."""


def watch_risks(alerts: Alerts, lake: Lakehouse, seen: int | None, names_kept_since: str) -> int | None:
    """Tell of each HIGH risk user of each day that Gold has written since snapshot ``seen``; each is told once.

    Nothing is told of a day that is old enough to be masked: its users are hashes then, which nobody has been told of, and
    masking and compaction write them again.

    Args:
        names_kept_since: days before this one (yyyy-MM-dd) are to be masked.

    Returns:
        The snapshot that has been looked at.
    """
    table = lake.table(RISK_SCORES)
    head = table.current_snapshot()
    if head is None or head.snapshot_id == seen:
        return seen
    named_since = max(lake.state(RISK_SCORES).masked.before, names_kept_since)
    dates = [day for day in _new_dates(lake, seen) if day >= named_since]
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
    for version in lake.state(RISK_SCORES).history():
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
