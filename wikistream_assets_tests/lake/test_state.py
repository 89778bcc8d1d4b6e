"""States: what is decided from one look, without a lake, and how many loads a look costs with one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary

from wikistream_assets.defs.ops.loop import cycle_loop
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine import bronze_gate
from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.engine.publication import pending_range
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import Lakehouse, LocalCatalog
from wikistream_assets.lake.state import (
    AUDITED_TAG,
    MAIN,
    States,
    TableState,
    clock_is_behind,
    summary_properties,
)
from wikistream_assets.resources.local import LOCAL_RESOURCES, LocalBroker
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits import stream
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, HOURLY_STATS, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep.maintenance import plan

FIRST = 1


def table(spec: TableSpec, positions: dict[int, object], **refs: int) -> TableState:
    """A table whose main is the snapshots 1, 2, 3 .., each with the position given for it; ``refs`` are branches and tags."""
    snapshots = {}
    for number in range(FIRST, max(positions, default=FIRST) + 1):
        position = positions.get(number)
        properties = summary_properties(position, {}) if isinstance(position, dict) else {}
        snapshots[number] = Snapshot(
            snapshot_id=number,
            parent_snapshot_id=number - 1 or None,
            sequence_number=number,
            timestamp_ms=1_000 * number,
            manifest_list="",
            summary=Summary(Operation.APPEND, **properties),
        )
    return TableState(spec, {MAIN: max(snapshots), **refs}, snapshots, {}, 1_000 * max(snapshots))


BRONZE = table(RAW_EVENTS, {2: {"raw-events": {"0": 5}}, 3: {"raw-events": {"0": 9}}, 4: None})
SILVER = table(CLEANED_EVENTS, {2: {RAW_EVENTS.identifier: 2}})
GOLD = table(HOURLY_STATS, {})


@pytest.mark.unit
def test_a_table_is_read_from_its_newest_snapshot_back() -> None:
    assert [version.snapshot_id for version in BRONZE.history()] == [4, 3, 2, 1]
    assert [version.snapshot_id for version in BRONZE.between(2, 4)] == [4, 3]
    newest = BRONZE.newest_position()
    assert newest is not None
    assert (newest.snapshot_id, BRONZE.position, BRONZE.first) == (3, {"raw-events": {"0": 9}}, FIRST)
    assert BRONZE.head("gone") is None
    with pytest.raises(LakeError, match="has no 'gone' any more"):
        BRONZE.head_id("gone")


@pytest.mark.unit
def test_what_is_pending_follows_from_states_alone() -> None:
    tagged = replace(BRONZE, refs={**BRONZE.refs, AUDITED_TAG: 3})
    assert bronze_gate.pending_range(States.of(BRONZE), RAW_EVENTS) == SnapshotRange(FIRST, 3)
    assert bronze_gate.pending_range(States.of(tagged), RAW_EVENTS) == SnapshotRange(3, 3)
    assert pending_range(States.of(tagged, SILVER), stream.SILVER) == SnapshotRange(2, 3)
    assert pending_range(States.of(SILVER, GOLD), stream.GOLD) == SnapshotRange(FIRST, 2)
    assert waiting_layers(States.of(tagged, SILVER, GOLD), stream.EDITS) == ("silver", "gold")
    pinned = replace(SILVER, properties={"wikistream.auditing": '{"start": 2, "end": 2}'})
    assert pending_range(States.of(tagged, pinned), stream.SILVER) == SnapshotRange(2, 3)
    branch = replace(SILVER, refs={**SILVER.refs, "audit": 2})
    assert pending_range(States.of(tagged, branch), stream.SILVER) == SnapshotRange(2, 3)
    with pytest.raises(LakeError, match="not among the tables"):
        pending_range(States.of(tagged), stream.SILVER)


@pytest.mark.unit
def test_the_clock_is_judged_by_the_newest_of_the_tables() -> None:
    newest = datetime.fromtimestamp(4, UTC)
    assert clock_is_behind([SILVER, BRONZE], newest) is None
    assert clock_is_behind([SILVER, BRONZE], newest - timedelta(seconds=60)) is None
    told = clock_is_behind([SILVER, BRONZE], newest - timedelta(seconds=61))
    assert told is not None
    assert told.startswith("the clock is 61 s behind the newest commit of bronze.raw_events")


# ---- what a look costs ------------------------------------------------------------------------------------------------


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each table is loaded from the catalog."""
    loads: Counter[str] = Counter()
    load = LocalCatalog.load_table

    def counting(self: LocalCatalog, identifier: str) -> Table:
        loads[identifier] += 1
        return load(self, identifier)

    with monkeypatch.context() as patch:
        patch.setattr(LocalCatalog, "load_table", counting)
        yield loads


@pytest.mark.local
def test_a_lake_that_is_there_is_opened_without_loading_a_table(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as loads:
        local_lake(settings)
    assert loads.total() == 0


@pytest.mark.local
def test_a_tick_of_the_loop_loads_three_tables_once_each(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_HOME", str(settings.home))
    monkeypatch.setattr(LocalBroker, "absent", lambda self: None)
    with (
        dg.instance_for_test() as instance,
        dg.build_sensor_context(instance, resources=dict(LOCAL_RESOURCES)) as context,
        counted(monkeypatch) as loads,
    ):
        assert isinstance(cycle_loop(context), dg.SkipReason)
    assert loads == {spec.identifier: 1 for spec in (RAW_EVENTS, CLEANED_EVENTS, HOURLY_STATS)}


@pytest.mark.local
def test_maintenance_is_planned_with_one_load_a_table(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as loads:
        states = lake.look()
        assert all(plan(states, spec, settings).empty for spec in ALL_TABLES)
    assert loads == {spec.identifier: 1 for spec in ALL_TABLES}
