"""The commands that look at a table's past, keep it small, copy it and bring it back, as a person types them."""

from pathlib import Path

import pytest

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.recompute import Position
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, HOURLY_STATS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.lake.lakes import add, full_row

FIRST, SECOND = "first.example", "second\x1b[2J.example"


@pytest.fixture
def versions(lake: Lakehouse) -> list[int]:
    """Snapshot ids of hourly_stats as published twice, each time with a row more."""
    ids = []
    for domain in (FIRST, SECOND):
        silver = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id=domain), position={"bronze.raw_events": 1})
        for spec in GOLD_TABLES:
            marks = {name: domain for name in ("domain", "entity_id") if name in spec.column_names}
            date = {spec.partition_by[0]: "2024-03-01"}
            newest = add(lake, spec, full_row(spec, **date, **marks), position=Position(silver).as_json(CLEANED_EVENTS))
            ids += [newest] if spec is HOURLY_STATS else []
    return ids


def said(settings: Settings, *arguments: str) -> str:
    done = wikistream(*arguments, settings=settings)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    return done.stdout


def test_a_publication_is_compared_and_taken_back(settings: Settings, lake: Lakehouse, versions: list[int]) -> None:
    first, second = (str(version) for version in versions)
    listed = said(settings, "snapshots", "gold.hourly_stats").splitlines()
    assert [line.split()[0] for line in listed if line.strip()[:1].isdigit()][:2] == [second, first]
    difference = said(settings, "diff", "gold.hourly_stats", first, "main")
    assert "1 added, 0 removed, 0 changed" in difference
    assert r"second\x1b[2J.example" in difference
    rollback = ("rollback", "gold.hourly_stats", first, "--reason", "wrong")
    assert f"gold.hourly_stats: {second} -> {first}" in said(settings, *rollback, "--dry-run")
    assert lake.state(HOURLY_STATS).head().snapshot_id == versions[1]
    said(settings, *rollback)
    assert lake.state(HOURLY_STATS).head().snapshot_id == versions[0]
    unknown = wikistream("diff", "gold.hourly_stats", "4711", "main", settings=settings)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "no snapshot '4711'" in unknown.stderr


def test_a_lake_is_backed_up_and_restored(
    settings: Settings, lake: Lakehouse, versions: list[int], tmp_path: Path
) -> None:
    folder, home = tmp_path / "backup", tmp_path / "restored"
    assert "copied now" in said(settings, "backup", str(folder), "--dagster")
    assert said(settings, "backup", str(folder)).rstrip().endswith("; 0 copied now")
    said(settings, "restore", str(folder), "--home", str(home))
    assert table_hashes(local_lake(Settings(home=home))) == table_hashes(lake)


@pytest.mark.spark
def test_a_dry_run_changes_nothing(settings: Settings, lake: Lakehouse, versions: list[int]) -> None:
    before = lake.table(HOURLY_STATS).metadata_location
    assert "dry run" in said(settings, "maintain", "gold.hourly_stats", "--dry-run")
    assert "2024-03-01" in said(settings, "mask", "--dry-run")
    assert lake.table(HOURLY_STATS).metadata_location == before
