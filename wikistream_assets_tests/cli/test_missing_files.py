"""Files of the lake that someone deleted or damaged: every command says which one, and what to do, in one line."""

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.embedded.doctor import examine
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.failures import in_one_line
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import local_path
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, RAW_EVENTS
from wikistream_assets_tests.conftest import Command
from wikistream_assets_tests.lake.lakes import add, full_row

READING = (
    ("tables",),
    ("gate", "status"),
    ("health",),
    ("sql", "select count(*) from silver.cleaned_events"),
    ("mask",),
)


@pytest.fixture
def made(lake: Lakehouse, settings: Settings) -> Settings:
    """A home with a row in Silver and one in Bronze."""
    for spec in (RAW_EVENTS, CLEANED_EVENTS):
        add(lake, spec, full_row(spec))
    return settings


def newest_metadata(settings: Settings) -> Path:
    return Path(local_path(local_lake(settings).table(CLEANED_EVENTS).metadata_location))


def assert_one_line(made: Settings, command: Command, *words: str) -> None:
    for arguments in READING:
        done = command(made, *arguments)
        assert (done.code, done.err.count("\n")) == (1, 1), (arguments, done.err)
        for expected in ("error: ", "wikistream restore", "WIKISTREAM_HOME", *words):
            assert expected in done.err, arguments


@pytest.mark.local
def test_a_table_folder_is_gone(made: Settings, command: Command) -> None:
    path = newest_metadata(made)
    shutil.rmtree(made.warehouse / "silver/cleaned_events")
    assert_one_line(made, command, "silver.cleaned_events", f"{path} is missing")
    assert not (made.warehouse / "silver/cleaned_events").exists()
    [finding] = [finding for finding in examine(made) if finding.name == "lake"]
    assert not finding.ok
    assert f"{path} is missing" in finding.text


@pytest.mark.local
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe{", b"{}", b'{"format-version": 2, "loc'])
def test_a_metadata_file_is_damaged(made: Settings, command: Command, damage: bytes) -> None:
    newest_metadata(made).write_bytes(damage)
    assert_one_line(made, command, "silver.cleaned_events", "metadata file is damaged")


@pytest.mark.local
def test_the_catalog_is_gone_and_no_empty_one_takes_its_place(made: Settings, command: Command) -> None:
    for path in made.root.glob("catalog.db*"):
        path.unlink()
    with pytest.raises(LakeError, match=r"catalog\.db is missing"):
        local_lake(made)
    assert not made.catalog_db.exists()


@pytest.mark.local
@pytest.mark.parametrize("kind", ["manifest list", "manifest", "data file"])
def test_a_file_below_the_metadata_is_gone(made: Settings, command: Command, kind: str) -> None:
    table = local_lake(made).table(CLEANED_EVENTS)
    newest = table.current_snapshot()
    assert newest is not None
    [manifest] = newest.manifests(table.io)
    [task] = table.scan().plan_files()
    named = {
        "manifest list": newest.manifest_list,
        "manifest": manifest.manifest_path,
        "data file": task.file.file_path,
    }
    victim = Path(local_path(named[kind]))
    victim.unlink()
    done = command(made, "sql", "select * from silver.cleaned_events")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert victim.name in done.err
    assert "wikistream restore" in done.err


@pytest.mark.spark
@pytest.mark.parametrize(
    "pattern", ["metadata/*-m*.avro", "metadata/snap-*.avro", "data/**/*.parquet", "metadata/*.json"]
)
def test_a_job_of_spark_names_the_file(made: Settings, spark: SparkSession, pattern: str) -> None:
    victims = sorted((made.warehouse / "silver/cleaned_events").glob(pattern))
    for victim in victims:
        victim.unlink()
    with pytest.raises(LakeError, match=r"^/.* is missing from the lake: restore a backup") as told:
        in_one_line(lambda: read_table(spark, CLEANED_EVENTS).collect())()
    assert any(str(victim) in str(told.value) for victim in victims)
