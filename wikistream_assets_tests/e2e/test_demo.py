"""The demo as a user runs it: a failed gate, the way out of it, and a second run."""

import json
import re

import pytest

from wikistream_assets.embedded import services
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, QUARANTINE
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.e2e.unknown_type import send_an_unknown_type

pytestmark = pytest.mark.e2e

EVENTS = "4000"


@pytest.mark.long
def test_a_second_demo_finds_nothing_new_and_a_failed_gate_leaves_what_is_published(settings: Settings) -> None:
    first = wikistream("demo", "--events", EVENTS, settings=settings)
    assert first.returncode == 0, first.stderr + first.stdout
    assert "every gate passed" in first.stdout
    assert "read 4,000 from synthetic" in first.stdout
    assert all(service.state == "STOPPED" for service in services.status(settings)), "the demo leaves no process"
    lake = local_lake(settings)
    hashes, heads = table_hashes(lake), _heads(lake)

    second = wikistream("demo", "--events", EVENTS, settings=settings)
    assert second.returncode == 0, second.stderr
    assert "nothing new" in second.stdout
    assert (table_hashes(lake), _heads(lake)) == (hashes, heads)

    send_an_unknown_type(settings)
    published = _heads(lake, CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)
    assert wikistream("demo", "--events", EVENTS, settings=settings).returncode == 3
    assert _heads(lake, CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES) == published


def test_demo_failed_gate_and_way_out(settings: Settings) -> None:
    send_an_unknown_type(settings, "11111111-\x1b]0;owned\x07")
    stopped = wikistream("demo", "--events", EVENTS, settings=settings)
    assert stopped.returncode == 3, stopped.stderr + stopped.stdout
    assert "read 4,000 from synthetic" in stopped.stdout
    assert "event_type_valid" in stopped.stdout
    lake = local_lake(settings)
    readable = {spec.identifier: _row_count(lake, spec) for spec in (CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)}
    assert set(readable.values()) == {0}, readable
    alert = json.loads((settings.root / "logs" / "alerts.jsonl").read_text().splitlines()[-1])
    assert (alert["subject"], alert["details"]["records_failed"]) == ("bronze.raw_events.event_type_valid", 1)
    status = wikistream("gate", "status", settings=settings)
    assert status.returncode == 3
    assert re.search(r"FAILED bronze.raw_events event_type_valid .*1 break the rule", status.stdout)

    decision = ("gate", "reject", "bronze.raw_events", "event_type_valid", "--where", "event_type = 'flow!'")
    dry = wikistream(*decision, "--reason", "a new extension", "--dry-run", settings=settings)
    assert (dry.returncode, "nothing recorded" in dry.stdout, "1 rows" in dry.stdout) == (0, True, True), dry.stderr
    assert "\x1b" not in dry.stdout
    assert r"11111111-\x1b]0;owned\x07" in dry.stdout, "what a terminal would obey is written out"
    assert wikistream(*decision, "--reason", "a new extension", settings=settings).returncode == 0
    mended = wikistream("demo", "--events", EVENTS, settings=settings)
    assert mended.returncode == 0, mended.stdout
    assert "every gate passed" in mended.stdout
    assert all(_row_count(lake, spec) for spec in (CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES))
    assert all(service.state == "STOPPED" for service in services.status(settings)), "the demo leaves no process"
    rejected = wikistream(
        "sql",
        "select failed_rules from quarantine.cleaned_events where failed_rules like '%rejected:%'",
        "--format",
        "csv",
        settings=settings,
    )
    assert len(rejected.stdout.strip().splitlines()) == 2, "the header and the one rejected event"
    assert wikistream("gate", "status", settings=settings).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source", "no/such/capture.jsonl"), "no/such/capture.jsonl"),
        (("--source", "pyproject.toml"), "lines are events"),
        (("--source", "live"), "WIKISTREAM_CONTACT"),
        (("--events", "0"), "EVENTS must be 1 or more"),
    ],
)
def test_a_wrong_source_is_one_line_and_leaves_nothing_behind(
    settings: Settings, arguments: tuple[str, ...], message: str
) -> None:
    done = wikistream("demo", *arguments, settings=settings)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not settings.root.exists()


def _heads(lake: Lakehouse, *specs: TableSpec) -> dict[str, int]:
    return {spec.identifier: lake.state(spec).head_id() for spec in specs or ALL_TABLES}


def _row_count(lake: Lakehouse, spec: TableSpec) -> int:
    return int(lake.table(spec).scan().count())
