"""``wikistream tables`` against what PyIceberg counts, and the lake read by PyIceberg alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import GOLD_TABLES, HOURLY_STATS, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.lake.lakes import add, full_row, publish_gold

pytestmark = pytest.mark.local

POSITION = {"raw-events": {"0": 5, "1": 7}}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with rows in every table; Gold's second publication is half done."""
    settings = Settings(home=tmp_path_factory.mktemp("tables") / "home")
    lake = local_lake(settings)
    for spec in ALL_TABLES:
        if spec not in GOLD_TABLES:
            add(lake, spec, full_row(spec), full_row(spec), position=POSITION if spec is RAW_EVENTS else None)
    publish_gold(lake, 1, "first")
    publish_gold(lake, 2, "second", GOLD_TABLES[:1])
    return settings


def listed(settings: Settings, *options: str) -> dict[str, dict]:
    done = wikistream("tables", "--json", *options, settings=settings)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["table"]: line for line in lines}


def test_figures_are_those_of_the_files(settings: Settings) -> None:
    lake = local_lake(settings)
    found = listed(settings)
    assert list(found) == [spec.identifier for spec in ALL_TABLES]
    for spec in set(ALL_TABLES) - {HOURLY_STATS}:
        table = lake.table(spec)
        files = [Path(task.file.file_path.removeprefix("file://")) for task in table.scan().plan_files()]
        line = found[spec.identifier]
        assert line["rows"] == table.scan().to_arrow().num_rows
        assert line["files"] == len(files)
        assert line["bytes"] == sum(file.stat().st_size for file in files)
        assert line["snapshot_id"] == table.current_snapshot().snapshot_id
    assert found["bronze.raw_events"]["position"] == POSITION
    assert found["silver.cleaned_events"]["position"] is None


def test_gold_is_shown_at_its_common_version(settings: Settings) -> None:
    line = listed(settings)["gold.hourly_stats"]
    assert line["rows"] == 1
    assert line["position"] == {"silver.cleaned_events": 1}


def test_hashes_are_those_of_the_function(settings: Settings) -> None:
    found = listed(settings, "--hash")
    hashes = {table: line["hash"] for table, line in found.items() if line["hash"] is not None}
    assert hashes == table_hashes(local_lake(settings))


def test_table_for_people(settings: Settings) -> None:
    done = wikistream("tables", "--hash", settings=settings)
    assert done.returncode == 0
    assert all(spec.identifier in done.stdout for spec in ALL_TABLES)
    assert all(value in done.stdout for value in table_hashes(local_lake(settings)).values())


READ_WITH_PYICEBERG = """
import sys
from pyiceberg.catalog.sql import SqlCatalog
home = sys.argv[1]
catalog = SqlCatalog("wikistream", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")
for namespace in catalog.list_namespaces():
    for name in catalog.list_tables(namespace):
        print(".".join(name), catalog.load_table(name).scan().to_arrow().num_rows)
assert not [m for m in sys.modules if m.split(".")[0] in ("wikistream_assets", "pyspark", "duckdb")]
"""


def read_alone(python: str, settings: Settings) -> dict[str, int]:
    done = subprocess.run(
        [python, "-c", READ_WITH_PYICEBERG, str(settings.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {name: int(rows) for name, rows in (line.split() for line in done.stdout.splitlines())}


def expected_rows() -> dict[str, int]:
    return {spec.identifier: 2 if spec not in GOLD_TABLES or spec is HOURLY_STATS else 1 for spec in ALL_TABLES}


def test_pyiceberg_alone_reads_every_table(settings: Settings) -> None:
    assert read_alone(sys.executable, settings) == expected_rows()


@pytest.mark.e2e
def test_fresh_environment_with_pyiceberg_only_reads_every_table(settings: Settings, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "pyiceberg[sql-sqlite,pyarrow]"], check=True, timeout=500)
    assert read_alone(str(python), settings) == expected_rows()
