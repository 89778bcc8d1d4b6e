"""Backup and restore: taken while the lake changes, whole at one instant, and alive at another path."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from producer.eventstreams.generator import Generator
from wikistream_assets.components.events import asset_key
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.source import choose_source, chosen_source
from wikistream_assets.engine.ingest import drain
from wikistream_assets.exceptions import ConfigurationError, LakeError
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.upkeep import backup
from wikistream_assets.upkeep.backup import MARK, back_up, restore
from wikistream_assets_tests.conftest import SettingsFactory, empty_topics, wait_until
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.kafka_records import judged, produce
from wikistream_assets_tests.lake.lakes import add
from wikistream_assets_tests.quality.samples import clean_rows


@pytest.mark.spark
def test_a_restored_lake_is_the_same_and_the_pipeline_goes_on(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    gates, rows = GateLake(settings), clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    hashes, source = table_hashes(lake), choose_source(settings, "synthetic")
    settings.criteria_file.write_text("[risk]\nhigh_from = 90\n")
    first = back_up(settings, tmp_path / "backup")
    assert first.copied > 0
    elsewhere = settings_factory()
    restore(tmp_path / "backup", elsewhere.root)
    # The original is gone: nothing of the restored lake may still point there.
    shutil.move(settings.root, tmp_path / "lost")
    there = GateLake(elsewhere)
    assert table_hashes(there.lake) == hashes
    assert there.ctx.criteria.risk.high_from == 90
    elsewhere.criteria_file.unlink()
    back_up(elsewhere, tmp_path / "second")
    assert not (tmp_path / "second/criteria.toml").exists()
    chosen = chosen_source(elsewhere)
    assert chosen is not None
    assert chosen.source.identity == source.source.identity
    assert (elsewhere.root / "secrets/user_key").read_text() == (tmp_path / "lost/secrets/user_key").read_text()
    assert (elsewhere.root / "secrets/user_key").stat().st_mode & 0o777 == 0o600
    there.add_bronze(rows[600:])
    assert all(report.passed and report.advanced for report in there.cycle())
    assert there.rows("select count(*) from silver.cleaned_events") == [(900,)]
    restore(tmp_path / "backup", settings.root)
    assert table_hashes(local_lake(settings)) == hashes


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
    assert copy.state(RAW_EVENTS).newest_position().position == {"raw-events": {"0": len(ids)}}


def test_metadata_that_later_commits_delete_is_read_from_the_backup(
    lake: Lakehouse,
    settings: Settings,
    settings_factory: SettingsFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lake whose commits come faster than the backup looks at what it has frozen."""
    row, freeze = clean_rows(RAW_EVENTS)[0], backup._freeze
    gone: list[str] = []
    add(lake, RAW_EVENTS, row)
    hashes = table_hashes(lake)

    def frozen_before_a_storm(root: Path, folder: Path) -> tuple[Path, set[str]]:
        catalog, names = freeze(root, folder)
        for number in range(12):
            add(lake, RAW_EVENTS, {**row, "event_id": str(number)})
        gone.extend(name for name in names if not (root / name).exists())
        return catalog, names

    monkeypatch.setattr(backup, "_freeze", frozen_before_a_storm)
    back_up(settings, tmp_path / "backup")
    assert len(gone) == 1
    assert table_hashes(_restored(settings_factory, tmp_path / "backup")) == hashes


@pytest.mark.spark
@pytest.mark.kafka
def test_lost_topics_are_read_from_their_beginning(
    fresh_topics: Broker, broker_settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    """Kafka is lost with the home: in the hour of the loss the new topic's offsets are those of other events again."""
    settings, elsewhere = (settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers) for _ in range(2))
    open_home(settings)
    source = Generator(seed=6, events=600, hours=1, canary=0, redelivered=0, malformed=0)
    lines = [made.data for made in source.lines()]
    assert _drained_cycle(settings, lines[:400]) == 400
    back_up(settings, tmp_path / "backup")
    empty_topics(fresh_topics, broker_settings)
    restore(tmp_path / "backup", elsewhere.root, kafka_lost=True)
    assert _drained_cycle(elsewhere, lines[300:]) == 600


def _drained_cycle(settings: Settings, lines: list[bytes]) -> int:
    """Send the lines, read them into Bronze, pass all gates; how many different events are published, each of them once."""
    produce(settings.bootstrap_servers, judged(lines))
    gates = GateLake(settings)
    drain(gates.ctx)
    assert all(report.passed and report.advanced for report in gates.cycle())
    both = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"
    [(rows, ids)] = gates.rows(f"select count(*), count(distinct event_id) from ({both})")
    assert rows == ids
    return int(ids)


def test_dagsters_databases_go_along(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    told = dg.AssetMaterialization(asset_key(RAW_EVENTS), metadata={"snapshot": "7"})
    with dagster_instance(settings) as instance:
        instance.report_runless_asset_event(told)
        instance.daemon_cursor_storage.set_cursor_values({"place": "7"})
        back_up(settings, tmp_path / "backup", dagster=True)
    elsewhere = settings_factory()
    restore(tmp_path / "backup", elsewhere.root)
    with dagster_instance(elsewhere) as instance:
        found = instance.get_latest_materialization_event(told.asset_key)
        assert found is not None
        assert found.asset_materialization == told
        assert instance.daemon_cursor_storage.get_cursor_values({"place"}) == {"place": "7"}


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
    with pytest.raises(ConfigurationError, match="contains a control character"):
        restore(tmp_path / "backup", tmp_path / "line\nbreak")
    assert not (tmp_path / "line\nbreak").exists()
    (tmp_path / "backup" / MARK).unlink()
    with pytest.raises(LakeError, match="no complete backup"):
        restore(tmp_path / "backup", tmp_path / "new")


def test_the_backup_of_another_lake_is_left_alone(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    """Another home; a restored copy, which has the same key and files of the same names; a home made anew in the same place."""
    folder, row = tmp_path / "backup", clean_rows(RAW_EVENTS)[0]
    add(lake, RAW_EVENTS, row)
    back_up(settings, folder)
    before = _contents(folder)
    other, copy = settings_factory(), settings_factory()
    open_home(other)
    local_lake(other)
    restore(folder, copy.root)
    for stranger in (other, copy):
        with pytest.raises(LakeError, match="name a new or empty folder") as refused:
            back_up(stranger, folder)
        assert str(settings.root) in str(refused.value)
        assert str(stranger.root) in str(refused.value)
        assert _contents(folder) == before
    shutil.move(settings.root, tmp_path / "old")
    open_home(settings)
    local_lake(settings)
    with pytest.raises(LakeError, match=r"the backup of another lake, .*\(key [0-9a-f]{16}\)"):
        back_up(settings, folder)
    _forget_whose(folder)
    with pytest.raises(LakeError, match="the backup of another lake"):
        back_up(settings, folder)
    assert {path: text for path, text in _contents(folder).items() if path.name != MARK} == {
        path: text for path, text in before.items() if path.name != MARK
    }


def test_the_mark_does_not_give_the_key_away(lake: Lakehouse, settings: Settings, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "backup")
    key = (settings.root / "secrets/user_key").read_text()
    mark = json.loads((tmp_path / "backup" / MARK).read_text())
    assert len(mark["lake"]) == 16
    assert mark["lake"] not in key


def test_a_backup_of_an_earlier_version_is_restored_and_completed(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    folder, row = tmp_path / "backup", clean_rows(RAW_EVENTS)[0]
    add(lake, RAW_EVENTS, row)
    back_up(settings, folder)
    _forget_whose(folder)
    assert table_hashes(_restored(settings_factory, folder)) == table_hashes(lake)
    add(lake, RAW_EVENTS, {**row, "event_id": "another"})
    assert back_up(settings, folder).copied > 0
    assert "lake" in json.loads((folder / MARK).read_text())
    assert table_hashes(_restored(settings_factory, folder)) == table_hashes(lake)


def test_manifests_that_differ_in_the_same_size_are_copied_again(
    lake: Lakehouse, settings: Settings, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    add(lake, RAW_EVENTS, clean_rows(RAW_EVENTS)[0])
    back_up(settings, tmp_path / "backup")
    manifests = sorted((tmp_path / "backup/warehouse").rglob("*.avro"))
    for path in manifests:
        path.write_bytes(bytes(path.stat().st_size))
    assert back_up(settings, tmp_path / "backup").copied == len(manifests)
    assert table_hashes(_restored(settings_factory, tmp_path / "backup")) == table_hashes(lake)
    assert back_up(settings, tmp_path / "backup").copied == 0


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _forget_whose(folder: Path) -> None:
    """Make the mark one of an earlier version."""
    mark = json.loads((folder / MARK).read_text())
    del mark["lake"]
    (folder / MARK).write_text(json.dumps(mark))


def _restored(settings_factory: SettingsFactory, folder: Path, **how: Any) -> Lakehouse:
    settings = settings_factory()
    restore(folder, settings.root, **how)
    return local_lake(settings)
