"""Dagster's memory, kept short: its database would grow for ever, by a materialization for each batch of the stream alone.

What goes is what is older than a moment: runs that have ended with all that belongs to them, events that belong to no run (the
sensors' materializations), and check results. What stays, however old: the newest event of each asset and kind, the newest result
of each check, the runs that these are of, each job's newest run that has ended, every run that has not ended.

Safe at any moment: each transaction is short and ends with the database as Dagster expects it, nothing young is touched, and a
purge that is killed is simply done again. SQLite keeps the pages that become free and fills them with what comes, so the file
stops growing and does not shrink; ``VACUUM`` would give them back, but needs the database for itself.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import dagster as dg
import sqlalchemy as sa
from dagster import _check as dg_check

from wikistream_assets.instance.dagster_private import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    FINISHED_STATUSES,
    RUNLESS_RUN_ID,
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
)

_ROWS: Final = 500
"""Rows in one transaction: the lock on the database is held for some milliseconds."""

_RUNS: Final = 100
"""Runs asked for at a time; more than there are jobs, because the newest run of each may stand among the oldest."""


@dataclass(frozen=True)
class Bounds:
    """What one purge does at most; the next one goes on from there.

    Attributes:
        runs: runs that are deleted.
        batches: batches of rows that are looked at in each of the two tables.
        seconds: how long each of the three parts begins something new.
    """

    runs: int = 2_000
    batches: int = 200
    seconds: float = 120.0


@dataclass(frozen=True)
class Purged:
    """How many were deleted.

    Attributes:
        runs: with their events and logs.
        events: events that belonged to no run.
        check_results: results of asset checks.
    """

    runs: int
    events: int
    check_results: int


@dataclass(frozen=True)
class _Newest:
    """What stays because nothing newer has taken its place: events by their ids, and runs."""

    events: frozenset[int]
    runs: frozenset[str]


_AN_HOURS_WORTH: Final = Bounds()


def purge(instance: dg.DagsterInstance, before: datetime, bounds: Bounds = _AN_HOURS_WORTH) -> Purged:
    """Delete what is older than ``before``, oldest first.

    Args:
        instance: Dagster's storage; it may be in use.
        before: with its time zone.
        bounds: where to stop.

    Returns:
        What was deleted; nothing at all once everything old is gone.
    """
    storage = dg_check.inst(instance.event_log_storage, SqlEventLogStorage)
    newest = _newest(storage)
    return Purged(
        runs=_purge_runs(instance, before, newest, bounds),
        events=_purge_runless_events(storage, before, newest, bounds),
        check_results=_purge_check_results(storage, before, bounds),
    )


def _newest(storage: SqlEventLogStorage) -> _Newest:
    """Ask the two tables' indexes.

    The event with the highest id is among them whatever it is: SQLite gives the id after the highest one to the next event, and
    the sensors take an id below their cursor for an event that they have seen.
    """
    event, check = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    of_assets = (
        sa.select(sa.func.max(event.id))
        .where(event.asset_key.is_not(None))
        .group_by(event.asset_key, event.dagster_event_type)
    )
    highest = sa.select(sa.func.max(event.id))
    of_checks = sa.select(sa.func.max(check.id)).group_by(check.asset_key, check.check_name)
    with storage.index_connection() as connection:
        found = [
            *connection.execute(sa.select(event.id, event.run_id).where(event.id.in_(of_assets.union_all(highest)))),
            *connection.execute(
                sa.select(check.evaluation_event_storage_id, check.run_id).where(check.id.in_(of_checks))
            ),
        ]
    return _Newest(events=frozenset(row[0] for row in found), runs=frozenset(row[1] for row in found))


def _purge_runs(instance: dg.DagsterInstance, before: datetime, newest: _Newest, bounds: Bounds) -> int:
    deleted = 0
    due = islice(_old_runs(instance, before, newest.runs), bounds.runs)
    for _, run_id in zip(_turns(bounds.seconds), due, strict=False):
        _delete(instance, run_id)
        deleted += 1
    return deleted


def _old_runs(instance: dg.DagsterInstance, before: datetime, newest: frozenset[str]) -> Iterator[str]:
    """Runs that may go, oldest first; whoever takes one deletes it before asking for the next."""
    old = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=before)
    stay = set(newest)
    while True:
        # those that stay are found again each time, in front of the others
        records = instance.get_run_records(old, limit=len(stay) + _RUNS, ascending=True)
        stay |= _newest_of_jobs(instance, {record.dagster_run.job_name for record in records})
        due = [record.dagster_run.run_id for record in records if record.dagster_run.run_id not in stay]
        if not due:
            return
        yield from due


def _newest_of_jobs(instance: dg.DagsterInstance, jobs: set[str]) -> set[str]:
    """The newest run of each job that has ended, asked for as the loop asks (``cycles.last_cycle``): it is the loop's memory."""
    filters = [dg.RunsFilter(job_name=job, statuses=FINISHED_STATUSES) for job in jobs]
    return {record.dagster_run.run_id for one in filters for record in instance.get_run_records(one, limit=1)}


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its logs, outputs and events.

    The run itself goes last, while ``delete_run`` alone would begin with it: whoever is killed in between leaves a run that the
    next purge finds, and not events that nobody would find any more.
    """
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.event_log_storage.delete_events(run_id)
    instance.delete_run(run_id)


def _purge_runless_events(storage: SqlEventLogStorage, before: datetime, newest: _Newest, bounds: Bounds) -> int:
    event, deleted = SqlEventLogStorageTable.c, 0
    for ids in _old_rows(
        storage, SqlEventLogStorageTable, event.timestamp, before, bounds, event.run_id == RUNLESS_RUN_ID
    ):
        due = [number for number in ids if number not in newest.events]
        with storage.index_connection() as connection:
            connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(due)))
            deleted += connection.execute(SqlEventLogStorageTable.delete().where(event.id.in_(due))).rowcount
    return deleted


def _purge_check_results(storage: SqlEventLogStorage, before: datetime, bounds: Bounds) -> int:
    """Delete those that a newer result has replaced: one that is only planned has none, and its run may have been killed.

    Dagster leaves them when it deletes their run.
    """
    check, deleted = AssetCheckExecutionsTable.c, 0
    completed = [status.value for status in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES]
    results = (
        sa.select(check.asset_key, check.check_name, sa.func.max(check.id))
        .where(check.execution_status.in_(completed))
        .group_by(check.asset_key, check.check_name)
    )
    with storage.index_connection() as connection:
        newest = {(asset, name): number for asset, name, number in connection.execute(results)}
    for ids in _old_rows(storage, AssetCheckExecutionsTable, check.create_timestamp, before, bounds):
        with storage.index_connection() as connection:
            rows = connection.execute(sa.select(check.id, check.asset_key, check.check_name).where(check.id.in_(ids)))
            due = [number for number, asset, name in rows if number < newest.get((asset, name), 0)]
            deleted += connection.execute(AssetCheckExecutionsTable.delete().where(check.id.in_(due))).rowcount
    return deleted


def _old_rows(
    storage: SqlEventLogStorage,
    table: sa.Table,
    at: sa.Column[Any],
    before: datetime,
    bounds: Bounds,
    condition: sa.ColumnElement[bool] | None = None,
) -> Iterator[list[int]]:
    """The ids of old rows, a batch at a time; ends where the young ones begin, because ids are given in the order of time."""
    moment = before.astimezone(UTC).replace(tzinfo=None)  # the tables hold UTC and no zone
    query = sa.select(table.c.id, at).order_by(table.c.id).limit(_ROWS)
    if condition is not None:
        query = query.where(condition)
    last = 0
    for _, _ in zip(_turns(bounds.seconds), range(bounds.batches), strict=False):
        with storage.index_connection() as connection:
            rows = connection.execute(query.where(table.c.id > last)).all()
        if old := [number for number, when in rows if when < moment]:
            yield old
        if not rows or rows[-1][1] >= moment:
            return
        last = rows[-1][0]


def _turns(seconds: float) -> Iterator[None]:
    """As many turns as can begin in this time; after each a rest as long as it took, in which others get at the database."""
    deadline = time.monotonic() + seconds
    while (begun := time.monotonic()) < deadline:
        yield
        time.sleep(time.monotonic() - begun)
