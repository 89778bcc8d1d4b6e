"""Backup and restore: taken while the lake changes, whole at one instant, and alive at another path."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.exceptions import LakeError
from wikistream_assets.jobs.backup import MARK, back_up, restore
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.resources.spark import local_session
from wikistream_assets.resources.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.tables import RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.jobs.gate_lakes import GateLake
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.resources.lakes import add


@pytest.mark.spark
def test_a_restored_lake_is_the_same_and_the_pipeline_goes_on(
    spark: SparkSession, lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    gates, rows = GateLake(spark, lake, settings), clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    hashes = table_hashes(lake)
    first = back_up(settings, tmp_path / "backup")
    assert first.copied > 0
    elsewhere = settings_factory()
    restore(tmp_path / "backup", elsewhere.root)
    # The original is gone: nothing of the restored lake may still point there.
    shutil.move(settings.root, tmp_path / "lost")
    there = GateLake(local_session(elsewhere), Lakehouse.local(elsewhere), elsewhere)
    assert table_hashes(there.lake) == hashes
    assert (elsewhere.root / "secrets/user_key").read_text() == (tmp_path / "lost/secrets/user_key").read_text()
    assert (elsewhere.root / "secrets/user_key").stat().st_mode & 0o777 == 0o600
    there.add_bronze(rows[600:])
    assert all(report.passed and report.advanced for report in there.cycle())
    assert there.rows("select count(*) from silver.cleaned_events") == [(900,)]
    restore(tmp_path / "backup", settings.root)
    assert table_hashes(Lakehouse.local(settings)) == hashes


@pytest.mark.long
def test_a_backup_under_writes_is_one_instant_and_copies_only_what_is_new(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    row = clean_rows(RAW_EVENTS)[0]
    stop, added = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            number = len(added)
            add(lake, RAW_EVENTS, {**row, "event_id": str(number)}, position={"raw-events": {"0": number + 1}})
            added.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        back_up(settings, tmp_path / "backup")
        before = len(added)
        wait_until(lambda: len(added) > before)
        second = back_up(settings, tmp_path / "backup", dagster=True)
    finally:
        stop.set()
        writer.join()
    assert 0 < second.copied < second.files
    copy = _restored(settings_factory, tmp_path / "backup")
    ids = sorted(int(row["event_id"]) for row in copy.table(RAW_EVENTS).scan().to_arrow().to_pylist())
    assert ids == list(range(len(ids)))  # everything up to one instant, nothing after it
    assert before <= len(ids) <= len(added)
    assert copy.newest_position(RAW_EVENTS).position == {"raw-events": {"0": len(ids)}}


@pytest.mark.long
def test_lost_topics_are_read_from_their_beginning(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    gates = GateLake(None, lake, settings)  # type: ignore[arg-type]  # nothing here runs Spark
    gates.add_bronze(clean_rows(RAW_EVENTS)[:10])
    back_up(settings, tmp_path / "backup")
    newest = _restored(settings_factory, tmp_path / "backup", kafka_lost=True).newest_position(RAW_EVENTS)
    assert (newest.position, newest.counts["total"]["rows"]) == ({}, 10)


def test_what_is_no_backup_or_would_overwrite_is_refused(lake: Lakehouse, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="inside the lake's own folder"):
        back_up(settings, settings.root / "backup")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(LakeError, match="holds no backup"):
        back_up(settings, tmp_path / "other")
    back_up(settings, tmp_path / "backup")
    with pytest.raises(LakeError, match="there is a lake in"):
        restore(tmp_path / "backup", settings.root)
    (tmp_path / "backup" / MARK).unlink()
    with pytest.raises(LakeError, match="no complete backup"):
        restore(tmp_path / "backup", tmp_path / "new")


def _restored(settings_factory: SettingsFactory, folder: Path, **how: Any) -> Lakehouse:
    settings = settings_factory()
    restore(folder, settings.root, **how)
    return Lakehouse.local(settings)
