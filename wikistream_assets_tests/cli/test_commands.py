"""The command line as a whole: what is there, what it costs to ask, and how errors end."""

import subprocess
import sys

import pytest

from wikistream_assets.cli.main import COMMANDS, load_command
from wikistream_assets.settings import Settings
from wikistream_assets_tests.cli.runner import wikistream

pytestmark = pytest.mark.local


def test_help_names_every_command() -> None:
    done = wikistream("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_has_help(name: str) -> None:
    command = load_command(name)
    assert command.name == name
    assert command.help or command.commands


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from wikistream_assets.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pyspark', 'dagster', 'duckdb', 'pyiceberg', 'pyarrow', 'pydantic', 'confluent_kafka'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("command", ["sql", "queries", "quality", "tables", "trace", "dlq", "dictionary"])
def test_read_commands_never_load_spark_or_dagster(command: str, settings: Settings) -> None:
    code = (
        f"import sys; from wikistream_assets.cli import {command}\n"
        "import wikistream_assets.readers.quality_report\n"
        "import wikistream_assets.lake.table_hash, wikistream_assets.readers.edits.trace\n"
        "print(sorted({'pyspark', 'dagster', 'pydeequ'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version() -> None:
    done = wikistream("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("wikistream ")


def test_unknown_command_is_usage_error() -> None:
    done = wikistream("sqll")
    assert done.returncode == 2
    assert "sqll" in done.stderr


def test_unknown_setting_is_one_line_and_exit_2() -> None:
    done = wikistream("tables", WIKISTREAM_KAFKA_PROT="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown setting WIKISTREAM_KAFKA_PROT")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("sql", "SELECT 1"), ("queries", "bots"), ("quality",), ("tables",), ("trace", "x"), ("dlq", "list")]
)
def test_reading_where_no_lake_is_says_so_and_makes_none(settings: Settings, arguments: tuple[str, ...]) -> None:
    done = wikistream(*arguments, settings=settings)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no lake in ")
    assert done.stderr.count("\n") == 1
    assert not settings.root.exists()
