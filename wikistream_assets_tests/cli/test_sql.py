"""``wikistream sql`` as a user runs it."""

import csv
import io
import json

import pytest

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.lake.lakes import add, full_row

pytestmark = pytest.mark.local

HOSTILE = "=cmd|'/C calc'!A0\x1b[31m\u202e"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose Bronze has 60 rows, the first with a hostile title."""
    settings = Settings(home=tmp_path_factory.mktemp("sql") / "home")
    rows = [full_row(RAW_EVENTS, event_id=f"e{i:02}", title=f"Page {i}", length_delta=-i) for i in range(60)]
    rows[0]["title"] = HOSTILE
    add(local_lake(settings), RAW_EVENTS, *rows)
    return settings


def test_table_shows_fifty_rows_and_says_how_to_get_more(settings: Settings) -> None:
    done = wikistream("sql", "SELECT event_id, title FROM bronze.raw_events ORDER BY 1", settings=settings)
    assert done.returncode == 0
    assert "e49" in done.stdout
    assert "e50" not in done.stdout
    assert "--limit" in done.stderr
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert r"\x1b[31m\u202e" in done.stdout


@pytest.mark.parametrize(("limit", "rows"), [("0", 60), ("3", 3), ("60", 60)])
def test_limit(settings: Settings, limit: str, rows: int) -> None:
    done = wikistream("sql", "SELECT event_id FROM bronze.raw_events", "--limit", limit, settings=settings)
    assert done.returncode == 0
    assert sum(line.strip().startswith("e") for line in done.stdout.splitlines()[2:]) == rows
    assert ("--limit" in done.stderr) == (rows < 60)


def test_json_lines_carry_every_row_and_the_exact_text(settings: Settings) -> None:
    sql = "SELECT event_id, title, length_delta, event_timestamp, rc_id FROM bronze.raw_events ORDER BY 1"
    done = wikistream("sql", "-", "-f", "json", settings=settings, stdin=sql)
    assert done.returncode == 0
    assert done.stderr == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 60
    assert rows[0] == {
        "event_id": "e00",
        "title": HOSTILE,
        "length_delta": 0,
        "event_timestamp": "2024-03-01T12:30:00Z",
        "rc_id": 2,
    }


def test_csv_is_safe_to_open_in_a_spreadsheet(settings: Settings) -> None:
    sql = 'SELECT event_id, title AS "=t", length_delta, NULL AS n FROM bronze.raw_events ORDER BY 1'
    done = wikistream("sql", sql, "--format", "csv", settings=settings)
    assert done.returncode == 0
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["event_id", "'=t", "length_delta", "n"]
    assert rows[1] == ["e00", r"'=cmd|'/C calc'!A0\x1b[31m\u202e", "0", ""]
    assert rows[2] == ["e01", "Page 1", "-1", ""]
    assert len(rows) == 61


def test_explain_keeps_its_lines(settings: Settings) -> None:
    done = wikistream("sql", "EXPLAIN SELECT count(*) FROM bronze.raw_events", settings=settings)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT nope FROM bronze.raw_events",
        "DROP VIEW bronze.raw_events",
        "SELECT 1; SELECT 2",
        "",
        "SELECT 1/'x'",
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_bad_sql_is_one_line_and_exit_2(settings: Settings, sql: str, output: str) -> None:
    done = wikistream("sql", sql, "-f", output, settings=settings)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_reader_that_stops_early_is_no_error(settings: Settings) -> None:
    import subprocess
    import sys

    from wikistream_assets_tests.conftest import child_environment

    code = "from wikistream_assets.cli.main import main; main()"
    command = [sys.executable, "-c", code, "sql", "SELECT * FROM range(1000000)", "-f", "csv"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment(settings)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
