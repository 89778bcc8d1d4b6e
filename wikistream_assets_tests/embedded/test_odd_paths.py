"""A lake in a folder whose name means something to one of the languages it is written in: every reader and writer finds it."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.lake import procedures
from wikistream_assets.lake.lakehouse import CATALOG_NAME, Lakehouse
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.query import query
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep.backup import back_up, restore
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.lake.lakes import add, full_row

pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

ODD_NAMES = (
    "a b/c#d/ümlaut 'x'",
    'per%20cent %s %/semi;colon & a=b/"q" [b]*{c,d}/-dash/~tilde/$HOME ${x} $(y) `z`/colon: @at!/日本語 🙂/ blank ',
    "back\\slash",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_lake_is_written_read_and_maintained(name: str, settings_factory: SettingsFactory, tmp_path: Path) -> None:
    settings = settings_factory(home=tmp_path / "homes" / name)
    open_home(settings)
    lake = local_lake(settings)
    spark = local_session(settings)

    add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="by PyIceberg"))
    insert = f"INSERT INTO {CATALOG_NAME}.{RAW_EVENTS.identifier}"
    spark.sql(f"{insert} SELECT * FROM {CATALOG_NAME}.{RAW_EVENTS.identifier}")
    spark.sql(f"UPDATE {CATALOG_NAME}.{RAW_EVENTS.identifier} SET payload = 'changed'")  # delete files, too
    assert procedures.compact(spark, RAW_EVENTS, "true", target_file_bytes=2**20, min_input_files=1)[0] > 0

    files = [Path(local_path(task.file.file_path)) for task in lake.table(RAW_EVENTS).scan().plan_files()]
    assert all(file.is_relative_to(settings.warehouse) for file in files), files
    # Everything is so old that only what the table knows is kept: a file it cannot recognise would be deleted here.
    orphan = settings.warehouse / "bronze" / "raw_events" / "data" / "orphan.parquet"
    orphan.write_bytes(b"orphan")
    long_ago = (datetime.now(UTC) - timedelta(days=30)).timestamp()
    for file in settings.warehouse.rglob("*"):
        os.utime(file, (long_ago, long_ago))
    removed = procedures.remove_orphans(spark, RAW_EVENTS, datetime.now(UTC) - timedelta(days=2))
    assert [Path(local_path(location)) for location in removed] == [orphan]

    values = ["by PyIceberg", "by PyIceberg"]
    statement = f"SELECT event_id FROM {RAW_EVENTS.identifier}"
    assert [row[0] for row in query(lake, statement).rows] == values
    assert [row[0] for row in spark.sql(statement.replace("FROM ", f"FROM {CATALOG_NAME}.")).collect()] == values
    assert _ids(lake, RAW_EVENTS) == values

    copied, elsewhere = tmp_path / "backups" / name, tmp_path / "restored" / name
    back_up(settings, copied)
    restore(copied, elsewhere)
    assert _ids(local_lake(settings_factory(home=elsewhere)), RAW_EVENTS) == values
    # the folders that the names ask for, and nothing beside them
    for kind in ("homes", "backups", "restored"):
        folder = tmp_path / kind
        for part in Path(name).parts:
            assert [entry.name for entry in folder.iterdir()] == [part]
            folder /= part


def _ids(lake: Lakehouse, spec: TableSpec) -> list[str]:
    return [row["event_id"] for row in lake.table(spec).scan().to_arrow().to_pylist()]
