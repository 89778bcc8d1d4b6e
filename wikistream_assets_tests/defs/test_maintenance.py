"""The jobs of maintenance and masking, run by Dagster on a lake that needs nothing: figures for every table, and no JVM."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from wikistream_assets.components.events import asset_key
from wikistream_assets.definitions import defs
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep.maintenance import layers_of
from wikistream_assets.upkeep.masking import layers_to_mask


@pytest.fixture
def observed(settings: Settings, lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a job; returns what it said about each table."""
    monkeypatch.setenv("WIKISTREAM_HOME", str(settings.root))

    def run(job: str) -> dict[dg.AssetKey, dict[str, Any]]:
        result = defs().resolve_job_def(job).execute_in_process()
        events = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
        observations = [event.event_specific_data.asset_observation for event in events]
        return {o.asset_key: {name: value.value for name, value in o.metadata.items()} for o in observations}

    return run


def test_every_table_is_looked_after(observed: Any) -> None:
    said = observed("maintenance")
    assert set(said) == {asset_key(spec) for spec in ALL_TABLES}
    figures = {"files before": 0, "files after": 0, "snapshots before": 1, "snapshots after": 1, "snapshots expired": 0}
    assert all(metadata.items() >= figures.items() for metadata in said.values())


def test_every_table_that_may_hold_names_is_masked(observed: Any) -> None:
    said = observed("masking")
    names = {"user", "user_normalized", "entity_id", "original", "failing_key", "predicate"}
    assert set(said) == {asset_key(spec) for spec in ALL_TABLES if names & set(spec.column_names)}
    assert all(metadata["dates masked"] == 0 for metadata in said.values())


def test_masking_forgets_old_alerts(settings: Settings, observed: Any) -> None:
    log = settings.root / "logs" / "alerts.jsonl"
    log.parent.mkdir(exist_ok=True)
    today = datetime.now(UTC)
    log.write_text("".join(json.dumps({"at": (today - timedelta(days=age)).isoformat()}) + "\n" for age in (91, 89, 0)))
    observed("masking")
    assert len(log.read_text().splitlines()) == 2


def test_runs_and_maintenance_of_a_layer_share_a_pool() -> None:
    steps: dict[str, tuple[TableSpec, ...]] = {**layers_of(EDITS), **layers_to_mask(EDITS)}
    definitions = defs()
    for job, prefix, others in (("maintenance", "maintain", set()), ("masking", "mask", {"forget_alerts"})):
        nodes = definitions.resolve_job_def(job).graph.node_dict
        pools = {name: node.definition.pool for name, node in nodes.items()}  # type: ignore[attr-defined]
        assert {f"{prefix}_{layer}" for layer in steps} | others == set(pools)
        assert (pools[f"{prefix}_silver"], pools[f"{prefix}_gold"]) == ("edits.silver", "edits.gold")


def test_schedules_run_by_default() -> None:
    schedules = {schedule.name: schedule for schedule in defs().schedules or ()}
    ours = (
        "maintenance_schedule",
        "orphans_schedule",
        "masking_schedule",
        "history_schedule",
        "redrive_dead_letters_every_six_hours",
    )
    assert all(schedules[name].default_status is dg.DefaultScheduleStatus.RUNNING for name in ours)
