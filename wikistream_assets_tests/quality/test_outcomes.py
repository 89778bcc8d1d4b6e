"""The one status logic: severity, acceptance, and what blocks."""

from dataclasses import replace

import pytest

from wikistream_assets.quality.outcomes import broken, computed, not_applicable
from wikistream_assets.quality.rule import MAX_FAILING_KEYS, Rule, Severity, Status
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS

pytestmark = pytest.mark.unit

STRICT = CLEANED_EVENTS.rule("parity_bronze_silver")
LENIENT = replace(STRICT, severity=Severity.WARNING)


@pytest.mark.parametrize(
    ("rule", "ok", "decision", "status"),
    [
        (STRICT, True, None, Status.PASSED),
        (STRICT, True, "d-1", Status.PASSED),
        (STRICT, False, None, Status.FAILED),
        (STRICT, False, "d-1", Status.WARNING),
        (LENIENT, True, None, Status.PASSED),
        (LENIENT, False, None, Status.WARNING),
    ],
)
def test_a_measured_figure(rule: Rule, ok: bool, decision: str | None, status: Status) -> None:
    outcome = computed(rule, "t.t", metric=0.5, ok=ok, message="why", decision=decision)

    assert outcome.status is status
    assert outcome.message == ("accepted by decision d-1: why" if decision and not ok else "why")


@pytest.mark.parametrize(
    ("metric", "status"), [(0.9, Status.PASSED), (0.89, Status.WARNING), (0.5, Status.WARNING), (0.49, Status.FAILED)]
)
def test_a_rule_with_two_bounds(metric: float, status: Status) -> None:
    rule = replace(STRICT, threshold=0.5, warn_below=0.9)
    assert computed(rule, "t.t", metric=metric, ok=metric >= rule.threshold, message="why").status is status


@pytest.mark.parametrize("rule", [STRICT, LENIENT])
def test_a_broken_check_blocks_until_it_is_accepted(rule: Rule) -> None:
    assert broken(rule, "t.t", "boom").status is Status.ERROR
    accepted = broken(rule, "t.t", "boom", decision="d-1")
    assert accepted.status is Status.WARNING
    assert "d-1" in accepted.message
    assert "boom" in accepted.message


def test_only_failed_and_error_block() -> None:
    assert {status for status in Status if status.blocks} == {Status.FAILED, Status.ERROR}


def test_what_is_not_applicable_has_a_reason_and_no_figure() -> None:
    outcome = not_applicable(STRICT, "t.t", "replayed", records_checked=7)

    assert (outcome.status, outcome.message, outcome.metric, outcome.records_checked) == (
        Status.SKIPPED,
        "replayed",
        None,
        7,
    )


def test_keys_beyond_the_limit_are_dropped() -> None:
    keys = [str(number) for number in range(MAX_FAILING_KEYS + 1)]

    assert computed(STRICT, "t.t", metric=0, ok=False, message="", keys=keys).failing_keys == tuple(keys[:-1])
