"""The lake as a reader saw it at an earlier moment, from what Iceberg still keeps.

Each table is read at the snapshot that its main branch pointed to at that moment. The table's log tells: what a gate publishes is
visible later than the snapshot's own time says, and what a rollback took back was visible for a while. Gold's four tables are
read at the newest version that all four had by then. A snapshot's id stands for the moment at which it was published.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from wikistream_assets.exceptions import ConfigurationError, LakeError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import common_versions, read_together
from wikistream_assets.lake.state import POSITION_KEY, Version
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def versions_as_of(lake: Lakehouse, as_of: str, tables: Sequence[TableSpec]) -> Mapping[str, Version]:
    """The version of each table at a moment, by identifier.

    Args:
        as_of: a snapshot's id, or a time in ISO 8601, UTC unless it names another zone; a date is its first moment.
        tables: those to be read.

    Raises:
        ConfigurationError: ``as_of`` is neither.
        LakeError: no table has such a snapshot, it was never published, or what was there at that time is not kept any more.
    """
    named: dict[str, int] = {}
    if as_of.isdecimal():
        owner, snapshot_id = _owner(lake, int(as_of)), int(as_of)
        named[owner.identifier] = snapshot_id
        at_ms = _published_with(lake, owner, snapshot_id)
    else:
        at_ms = _milliseconds(as_of)
    groups = read_together(tables)
    needed = {*tables, *(spec for together in groups for spec in together)}
    heads = {spec.identifier: named.get(spec.identifier) or _head_at(lake.table(spec), at_ms) for spec in needed}
    found = {spec.identifier: next(lake.state(spec).history(heads[spec.identifier])) for spec in needed}
    for together in groups:
        found |= common_versions(lake.look(), together, heads)
    return found


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"--as-of {text!r} is neither a snapshot id nor a time: write 2026-11-20T06:00 (UTC), 2026-11-20T06:00+01:00, or an "
            "id from 'wikistream snapshots TABLE'"
        ) from None


def _owner(lake: Lakehouse, snapshot_id: int) -> TableSpec:
    for spec in ALL_TABLES:
        if lake.table(spec).snapshot_by_id(snapshot_id) is not None:
            return spec
    raise LakeError(
        f"no table has snapshot {snapshot_id}: it never existed, or maintenance has expired it; 'wikistream snapshots TABLE' "
        "lists those that are kept"
    )


def _published_with(lake: Lakehouse, spec: TableSpec, snapshot_id: int) -> int:
    """When main first held the snapshot, ms since 1970; of a recomputed table when all held the version it belongs to."""
    at_ms = _published_at(spec, lake.table(spec), {snapshot_id})
    groups = read_together([spec])
    if not groups:
        return at_ms
    version = lake.state(spec).newest_position(snapshot_id)
    if version is None:
        return at_ms  # from before the first publication
    position = json.dumps(version.position, sort_keys=True)
    for other in groups[0]:
        table = lake.table(other)
        at_ms = max(
            at_ms, _published_at(other, table, {s.snapshot_id for s in table.snapshots() if _position(s) == position})
        )
    return at_ms


def _published_at(spec: TableSpec, table: Table, snapshot_ids: set[int]) -> int:
    parents = {snapshot.snapshot_id: snapshot.parent_snapshot_id for snapshot in table.snapshots()}
    for entry in table.metadata.snapshot_log:
        ancestor: int | None = entry.snapshot_id
        while ancestor is not None:
            if ancestor in snapshot_ids:
                return entry.timestamp_ms
            ancestor = parents.get(ancestor)
    raise LakeError(
        f"{spec.identifier} has not published that snapshot, or not in all tables of its layer: it is of an audit branch; "
        f"'wikistream snapshots {spec.identifier}' lists what is published"
    )


def _head_at(table: Table, at_ms: int) -> int:
    """The snapshot that main pointed to."""
    log = table.metadata.snapshot_log
    kept = {snapshot.snapshot_id: snapshot for snapshot in table.snapshots()}
    found = next((entry.snapshot_id for entry in reversed(log) if entry.timestamp_ms <= at_ms), None)
    if found in kept:
        return found
    first = next((entry for entry in log if entry.snapshot_id in kept), None)
    since = f"{_EPOCH + timedelta(milliseconds=first.timestamp_ms)}" if first else "now"
    made = first is not None and kept[first.snapshot_id].sequence_number == 1
    raise LakeError(
        f"{'.'.join(table.name())} did not exist then: it was made at {since}"
        if made
        else f"{'.'.join(table.name())} is known since {since} only: what was there before has been expired by maintenance"
    )


def _position(snapshot: Snapshot) -> str | None:
    return snapshot.summary.additional_properties.get(POSITION_KEY) if snapshot.summary else None
