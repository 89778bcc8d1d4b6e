"""What a gate's report becomes in Dagster and for people."""

import json
from dataclasses import replace

import pytest

from wikistream_assets.alerts import Alerts
from wikistream_assets.components.events import tell_about_gate
from wikistream_assets.engine.context import GateReport, SnapshotRange
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS

pytestmark = pytest.mark.unit


def test_what_blocks_is_told_at_once_and_cleared_by_the_run_that_passes(settings: Settings) -> None:
    first, second, *_ = RAW_EVENTS.rules
    failed = CheckOutcome(
        first, RAW_EVENTS.identifier, Status.FAILED, 0.5, 10, 5, message="5 break the rule", failing_keys=("k1", "k2")
    )
    warned = CheckOutcome(second, RAW_EVENTS.identifier, Status.WARNING, 0.9, 10, 1, message="1 is late")
    passed = replace(failed, status=Status.PASSED)
    for run, outcome in (("run1", failed), ("run2", failed), ("run3", passed)):
        tell_about_gate(GateReport("bronze", SnapshotRange(1, 2), (outcome, warned)), Alerts(settings), run)
    lines = [json.loads(line) for line in (settings.root / "logs" / "alerts.jsonl").read_text().splitlines()]
    assert [(line["event"], line["subject"], line["count"]) for line in lines] == [
        ("fired", f"bronze.raw_events.{first.name}", 1),
        ("cleared", f"bronze.raw_events.{first.name}", 2),
    ]
    assert lines[0]["run_id"] == "run1"
    assert (lines[0]["details"]["records_failed"], lines[0]["details"]["failing_keys"]) == (5, ["k1", "k2"])
