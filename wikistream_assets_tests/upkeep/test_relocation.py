"""A home that was moved or copied: refused before the first write, and working again after ``wikistream relocate``."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from wikistream_assets.embedded import doctor, services, supervisor
from wikistream_assets.embedded.home import open_home, writer_lock
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.failpoints import RELOCATE_AFTER_CATALOG, RELOCATE_AFTER_TABLE
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.upkeep import relocation
from wikistream_assets.upkeep.backup import back_up, restore
from wikistream_assets.upkeep.relocation import relocate
from wikistream_assets_tests.conftest import Command, SettingsFactory
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.lake.lakes import add, full_row
from wikistream_assets_tests.quality.samples import clean_rows

OPENING = (
    *(
        ("demo",),
        ("up",),
        ("dev",),
        ("tables",),
        ("sql", "select 1"),
        ("gate", "status"),
        ("health",),
        ("alerts", "list"),
    ),
    *(
        ("dlq", "list"),
        ("trace", "7"),
        ("snapshots", "bronze.raw_events"),
        ("maintain",),
        ("mask",),
        ("backup", "/no/folder"),
    ),
)
"""Commands that open the lake, each in its own way."""


@pytest.fixture
def made(lake: Lakehouse, settings: Settings) -> Settings:
    """A home with rows in Bronze, in three snapshots."""
    for number in range(3):
        add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id=str(number)))
    return settings


def contents(root: Path) -> dict[str, bytes]:
    """Every file below but the catalog's, which SQLite brings up to date when its last reader goes."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("catalog.db"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def moved(made: Settings, to: Path) -> Settings:
    shutil.move(made.root, to)
    return made.model_copy(update={"home": to})


def copied(made: Settings, to: Path) -> Settings:
    shutil.copytree(made.root, to)
    return made.model_copy(update={"home": to})


def fresh(settings: Settings) -> Settings:
    """The settings without what they remember of their path."""
    return Settings(**settings.model_dump(exclude_unset=True))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test handles it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings, str], None]:
    """Return a runner of a relocation that ends at a failpoint, at the second pass where it is passed for each table."""

    def run(settings: Settings, place: str) -> None:
        passed = []

        def failpoint(_: Settings, name: str) -> None:
            passed.append(name)
            if passed.count(place) == (2 if "table" in place else 1):
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(relocation, "failpoint", failpoint)
            with pytest.raises(Killed):
                relocate(settings)

    return run


def forget_place(root: Path) -> None:
    """Make ``lake.json`` one of an earlier version."""
    known = json.loads((root / "lake.json").read_text())
    (root / "lake.json").write_text(json.dumps({name: known[name] for name in ("format_version", "created_at")}))


def paths_named(root: Path) -> set[str]:
    """The folder of every file that the catalog and Iceberg's files name, read by PyIceberg and SQLite."""
    io = PyArrowFileIO()
    with closing(sqlite3.connect(root / "catalog.db")) as connection:
        rows = connection.execute("SELECT metadata_location, previous_metadata_location FROM iceberg_tables").fetchall()
    named = {location for row in rows for location in row if location}
    lake = local_lake(Settings(home=root))
    for spec in ALL_TABLES:
        table = lake.table(spec)
        named |= {table.location(), *(entry.metadata_file for entry in table.metadata.metadata_log)}
        for snapshot in table.snapshots():
            named.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(io):
                named.add(manifest.manifest_path)
                named |= {
                    entry.data_file.file_path for entry in manifest.fetch_manifest_entry(io, discard_deleted=False)
                }
    return {re.sub(r"^file:(//)?(?=/)", "", name).rpartition("/warehouse/")[0] for name in named}


@pytest.mark.local
@pytest.mark.parametrize("earlier_version", [False, True])
@pytest.mark.parametrize("away", [moved, copied])
def test_a_home_in_another_place_is_refused_before_anything_is_written(
    made: Settings, tmp_path: Path, away: object, earlier_version: bool
) -> None:
    if earlier_version:
        forget_place(made.root)
    there = fresh(away(made, tmp_path / "elsewhere" / "lake"))  # type: ignore[operator]
    before = contents(tmp_path)
    for refused in (open_home, local_lake):
        with pytest.raises(LakeError) as told:
            refused(there)
        for words in (
            str(made.root),
            str(there.root),
            "'wikistream relocate'",
            away.__name__ if away is moved else "copy",
        ):
            assert words in str(told.value)
        assert "\n" not in str(told.value)
    assert contents(tmp_path) == before


@pytest.mark.local
def test_the_place_is_the_real_path(made: Settings, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made.root)
    assert open_home(Settings(home=tmp_path / "link")) == made.root
    (tmp_path / "deep").mkdir()
    assert open_home(Settings(home=tmp_path / "deep" / ".." / made.root.name)) == made.root


@pytest.mark.local
def test_a_home_of_an_earlier_version_is_adopted_where_it_was_made(made: Settings) -> None:
    forget_place(made.root)
    open_home(made)
    first = json.loads((made.root / "lake.json").read_text())
    assert first["path"] == str(made.root)
    assert len(first["id"]) == 36
    open_home(made)
    assert json.loads((made.root / "lake.json").read_text()) == first


@pytest.mark.local
def test_every_command_refuses_in_one_line(made: Settings, tmp_path: Path, command: Command) -> None:
    there = fresh(moved(made, tmp_path / "elsewhere"))
    for arguments in OPENING:
        done = command(there, *arguments)
        assert done.code == 1, arguments
        [line] = done.err.splitlines()
        for words in ("error: ", str(made.root), str(there.root), "wikistream relocate"):
            assert words in line, arguments
        assert not made.root.exists(), arguments


@pytest.mark.local
def test_doctor_and_down_work_on_a_moved_home(made: Settings, tmp_path: Path, command: Command) -> None:
    there = fresh(moved(made, tmp_path / "elsewhere"))
    findings = {finding.name: finding for finding in doctor.examine(there)}
    for name in ("home", "lake"):
        assert not findings[name].ok
        assert "wikistream relocate" in findings[name].text
    assert command(there, "down").out == "nothing was running\n"


@pytest.mark.local
@pytest.mark.parametrize("earlier_version", [False, True])
def test_a_moved_home_works_after_relocate(
    made: Settings, tmp_path: Path, command: Command, earlier_version: bool
) -> None:
    hashes, before = table_hashes(local_lake(made)), json.loads((made.root / "lake.json").read_text())
    if earlier_version:
        forget_place(made.root)
    there = fresh(moved(made, tmp_path / "warehouse" / "of mine"))  # a name that stands in every location, too
    done = command(there, "relocate")
    assert (done.code, done.err) == (0, "")
    assert paths_named(there.root) == {str(there.root)}
    lake = local_lake(there)
    assert table_hashes(lake) == hashes
    now = json.loads((there.root / "lake.json").read_text())
    assert now["path"] == str(there.root)
    assert earlier_version or now["id"] == before["id"]
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="new"))
    assert not made.root.exists()
    again = contents(there.root)
    assert "in its place already" in command(there, "relocate").out
    assert contents(there.root) == again


@pytest.mark.local
@pytest.mark.parametrize("earlier_version", [False, True])
def test_a_copy_becomes_a_lake_of_its_own_and_the_original_stays_as_it_is(
    made: Settings, tmp_path: Path, earlier_version: bool
) -> None:
    if earlier_version:
        forget_place(made.root)
    before = contents(made.root)
    there = fresh(copied(made, tmp_path / "copy"))
    done = relocate(there)
    assert done is not None
    assert (done.copied, done.former) == (True, made.root)
    lake = local_lake(there)
    for number in range(12):  # as many commits as make Iceberg delete metadata files of before
        add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id=f"copy {number}"))
    assert paths_named(there.root) == {str(there.root)}
    assert contents(made.root) == before
    open_home(made)
    identities = {json.loads((home.root / "lake.json").read_text())["id"] for home in (made, there)}
    assert len(identities) == 2


@pytest.mark.local
def test_another_home_at_the_old_place_is_no_original(made: Settings, settings: Settings, tmp_path: Path) -> None:
    there = fresh(moved(made, tmp_path / "elsewhere"))
    other = fresh(settings)
    open_home(other)
    local_lake(other)
    before = contents(other.root)
    with pytest.raises(LakeError, match="was moved there from"):
        open_home(there)
    done = relocate(there)
    assert done is not None
    assert not done.copied
    assert contents(other.root) == before


@pytest.mark.local
@pytest.mark.parametrize("below", ["inner", "warehouse", "../outer"])
def test_a_move_into_or_out_of_the_old_folder(
    made: Settings, tmp_path: Path, kill_at: Callable[[Settings, str], None], below: str
) -> None:
    """One path begins with the other: what was rewritten and what was not look alike."""
    hashes = table_hashes(local_lake(made))
    aside = tmp_path / "aside"
    shutil.move(made.root, aside)
    there = made.root / below
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(aside, there)
    settings = Settings(home=there)
    kill_at(settings, RELOCATE_AFTER_TABLE)
    assert relocate(settings) is not None
    assert paths_named(settings.root) == {str(settings.root)}
    assert table_hashes(local_lake(settings)) == hashes


@pytest.mark.local
@pytest.mark.parametrize(
    ("place", "moved_on"),
    [(RELOCATE_AFTER_TABLE, False), (RELOCATE_AFTER_TABLE, True), (RELOCATE_AFTER_CATALOG, True)],
)
def test_killed_half_way_it_is_refused_and_finished_by_the_next(
    made: Settings, tmp_path: Path, kill_at: Callable[[Settings, str], None], place: str, moved_on: bool
) -> None:
    hashes = table_hashes(local_lake(made))
    there = fresh(moved(made, tmp_path / "elsewhere"))
    kill_at(there, place)
    if moved_on:
        there = fresh(moved(there, tmp_path / "third"))
    with pytest.raises(LakeError, match="wikistream relocate"):
        local_lake(there)
    assert relocate(there) is not None
    assert paths_named(there.root) == {str(there.root)}
    assert table_hashes(local_lake(there)) == hashes
    assert not list(there.root.rglob("*.part"))


@pytest.mark.local
@pytest.mark.parametrize("kind", ["data", "manifest", "metadata", "damaged"])
def test_a_lake_that_is_not_whole_is_refused_unchanged(
    made: Settings, tmp_path: Path, command: Command, kind: str
) -> None:
    there = fresh(copied(made, tmp_path / "copy"))
    folder = there.root / "warehouse/bronze/raw_events"
    pattern = {"data": "data/**/*.parquet", "metadata": "metadata/*.metadata.json"}.get(kind, "metadata/*.avro")
    for victim in folder.glob(pattern):
        if kind == "damaged":
            victim.write_bytes(victim.read_bytes()[:100])
        else:
            victim.unlink()
    before = contents(tmp_path)
    done = command(there, "relocate")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert str(folder) in done.err
    assert "nothing was changed" in done.err
    assert {**contents(tmp_path), "copy/run/services.lock": b""} == {**before, "copy/run/services.lock": b""}


@pytest.mark.local
def test_a_home_in_use_is_not_relocated(made: Settings, tmp_path: Path) -> None:
    with writer_lock(made, "bronze.maintenance"):  # the lock moves along with its file
        there = fresh(moved(made, tmp_path / "elsewhere"))
        with pytest.raises(LakeError, match=r"is in use: .*wikistream down"):
            relocate(there)
    assert relocate(there) is not None


@pytest.mark.local
def test_what_was_started_before_the_move_is_found_and_ended(made: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, supervisor.HOME_MARK: str(made.root), supervisor.NAME_MARK: "stream"}
    with subprocess.Popen(["sleep", "60"], cwd=made.root, env=environment) as process:
        copy = fresh(copied(made, tmp_path / "copy"))
        assert services.down(copy) == [], "the original's programs are none of a copy's"
        assert process.poll() is None
        there = fresh(moved(made, tmp_path / "elsewhere"))
        with pytest.raises(LakeError, match="is in use"):
            relocate(there)
        assert services.down(there) == ["stream"]
        assert not psutil.pid_exists(process.pid)
    assert relocate(there) is not None


@pytest.mark.local
def test_a_backup_is_no_home(made: Settings, tmp_path: Path) -> None:
    back_up(made, tmp_path / "backup")
    backup = Settings(home=tmp_path / "backup")
    for refused in (open_home, relocate):
        with pytest.raises(LakeError, match=r"is a backup .*wikistream restore"):
            refused(backup)


@pytest.mark.local
def test_a_restored_home_knows_its_place(made: Settings, settings_factory: SettingsFactory, tmp_path: Path) -> None:
    forget_place(made.root)  # so is the backup of an earlier version
    back_up(made, tmp_path / "backup")
    elsewhere = settings_factory()
    restore(tmp_path / "backup", elsewhere.root)
    original, copy = (json.loads((home.root / "lake.json").read_text()) for home in (made, elsewhere))
    assert copy["path"] == str(elsewhere.root)
    assert copy["id"] != original.get("id")


@pytest.mark.spark
def test_the_pipeline_goes_on_in_the_new_place(
    lake: Lakehouse, settings: Settings, spark: object, tmp_path: Path
) -> None:
    """Manifests that Spark wrote, rewritten, and read and continued by Spark."""
    rows = clean_rows(RAW_EVENTS)
    gates = GateLake(settings)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    hashes = table_hashes(lake)
    there = fresh(moved(settings, tmp_path / "elsewhere"))
    assert relocate(there) is not None
    assert paths_named(there.root) == {str(there.root)}
    again = GateLake(there)
    assert table_hashes(again.lake) == hashes
    again.add_bronze(rows[600:])
    assert all(report.passed and report.advanced for report in again.cycle())
    silver = again.lake.state(CLEANED_EVENTS).head()
    assert silver is not None
    assert silver.total_records == len(rows)
    assert not settings.root.exists()
