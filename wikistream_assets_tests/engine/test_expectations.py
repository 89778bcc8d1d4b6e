"""Quarantine's budget and the expectations of volume and mix on a real lake: what is told, what blocks, and the ways out."""

from collections.abc import Callable
from typing import Any

import pytest

from wikistream_assets.alerts import AlertKind, Alerts
from wikistream_assets.components.events import tell_about_gate
from wikistream_assets.engine import failpoints, publication
from wikistream_assets.engine.context import GateReport
from wikistream_assets.engine.gate_control import decide_on_failure
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.declaration import Append
from wikistream_assets.streams.edits.cleaned_events import ROW_RULES
from wikistream_assets.streams.edits.stream import SILVER
from wikistream_assets.streams.edits.tables import QUARANTINE, RAW_EVENTS
from wikistream_assets.transforms.marks import DUPLICATE_EVENT_ID
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row, blocking
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = pytest.mark.spark

BUDGET = ("quarantine_budget_range", "quarantine_budget_day")


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def impossible(rows: list[Row]) -> list[Row]:
    """The rows with a page size that no page has."""
    for row in rows:
        row |= {"length_old": -5, "length_new": 1}
    return rows


def verdict(report: GateReport, check: str) -> CheckOutcome:
    return next(outcome for outcome in report.outcomes if outcome.rule.name == check)


def accept(gates: GateLake, table: str, check: str) -> None:
    decide_on_failure(gates.ctx, "accept", table, check, reason="checked by hand", decided_by="ada")


def test_a_range_that_goes_to_quarantine_as_a_whole_closes_the_gate_and_accepting_it_opens_it_for_good(
    gates: GateLake,
) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(impossible(rows[:600]))
    gates.bronze_gate()
    report = gates.silver()
    assert blocking(report) == dict.fromkeys(BUDGET, Status.FAILED)
    for check in BUDGET:
        outcome = verdict(report, check)
        assert (outcome.records_checked, outcome.records_failed, outcome.metric) == (600, 600, 0.0)
        assert outcome.evidence["rules"] == {"negative_length": 600}
        assert outcome.failing_keys == tuple(sorted(row["event_id"] for row in rows[:600]))[:100]
    alerts = Alerts(gates.ctx.settings)
    tell_about_gate(report, alerts, "run 1")
    (told,) = [
        alert.notice for alert in alerts.open_alerts() if alert.notice.subject.endswith("quarantine_budget_range")
    ]
    assert told.kind == AlertKind.GATE_FAILED
    assert told.details["evidence"]["rules"] == {"negative_length": 600}
    assert "negative_length 600" in told.message
    assert rows[0]["event_id"] in told.text
    for check in BUDGET:
        accept(gates, "silver.cleaned_events", check)
    assert gates.silver().passed
    assert gates.rows("select count(*) from quarantine.cleaned_events") == [(600,)]
    # the same day goes on, and the next range is small
    gates.add_bronze(rows[600:700])
    gates.bronze_gate()
    after = gates.silver()
    assert (after.passed, verdict(after, BUDGET[0]).status) == (True, Status.SKIPPED)
    assert "0 of 100 rows" in verdict(after, BUDGET[0]).message


def test_rows_that_an_operator_rejected_leave_the_gate_open(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    for row in rows[:600]:
        row["event_type"] = "flow!"
    gates.add_bronze(rows)
    assert not gates.bronze_gate().passed
    decide_on_failure(
        gates.ctx,
        "reject",
        "bronze.raw_events",
        "event_type_valid",
        reason="checked by hand",
        decided_by="ada",
        predicate="event_type = 'flow!'",
    )
    gates.bronze_gate()
    report = gates.silver()
    assert report.passed
    assert gates.rows("select count(*) from quarantine.cleaned_events") == [(600,)]
    assert verdict(report, BUDGET[0]).records_checked == 300, "only the other rows count"


def twice(rows: list[Row]) -> list[Row]:
    return rows + [row | {"kafka_offset": row["kafka_offset"] + 10_000} for row in rows]


def without_users(rows: list[Row]) -> list[Row]:
    return [row | {"user": None} if number % 3 else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("spoil", "check", "quarantined"), [(twice, "event_id_unique", 900), (without_users, "user_completeness", 600)]
)
def test_what_an_operator_let_through_bronze_is_not_stopped_in_silver(
    gates: GateLake, spoil: Callable[[list[Row]], list[Row]], check: str, quarantined: int
) -> None:
    gates.add_bronze(spoil(clean_rows(RAW_EVENTS)))
    assert blocking(gates.bronze_gate()) == {check: Status.FAILED}
    accept(gates, "bronze.raw_events", check)
    gates.bronze_gate()
    report = gates.silver()
    assert report.passed
    assert verdict(report, BUDGET[0]).evidence["quarantined"] == 0
    assert gates.rows("select count(*) from quarantine.cleaned_events") == [(quarantined,)]


def test_each_reason_that_bronze_can_be_accepted_for_is_one_of_its_checks() -> None:
    assert isinstance(SILVER.build, Append)
    accepted = SILVER.build.accepted_with
    assert accepted.keys() <= {DUPLICATE_EVENT_ID, *(rule.name for rule in ROW_RULES)}
    assert {name for names in accepted.values() for name in names} <= {rule.name for rule in RAW_EVENTS.rules}


def test_small_leaks_add_up_to_a_warning_and_go_back_with_a_rollback(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    impossible(rows[590:600])
    gates.add_bronze(rows[:590])
    gates.bronze_gate()
    assert gates.silver().passed
    before = gates.lake.state(QUARANTINE).head_id()
    gates.add_bronze(rows[590:600])
    gates.bronze_gate()
    report = gates.silver()
    assert report.passed
    assert {verdict(report, check).status for check in BUDGET} == {Status.WARNING}
    assert "10 of 600 rows" in verdict(report, BUDGET[1]).message
    assert gates.lake.state(QUARANTINE).newest_position(before).counts["budget"]["days"] == [
        [rows[0]["event_date"], {"read": 590, "quarantined": 0, "rules": {}}]
    ]


# ---- volume and mix: judged by complete event hours -------------------------------------------------------------------------


def cycle(gates: GateLake, rows: list[Row]) -> GateReport:
    gates.add_bronze(rows)
    assert gates.bronze_gate().passed
    report = gates.silver()
    assert report.passed
    return report


def test_an_hour_is_counted_once_whatever_the_pace_of_the_cycles(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    reports = [cycle(gates, rows[begin : begin + 225]) for begin in range(0, 900, 225)]
    told = [verdict(report, "volume_as_usual").message for report in reports]
    assert told == [
        "no hour of event time was completed",
        *["learning (0 of 7 whole days)"] * 3,
    ]
    counted = gates.rows(
        "select hour(event_hour at time zone 'UTC'), sum(record_count) from dq_audit.profile_metrics"
        " where column_name = 'region' and event_hour is not null group by 1 order by 1"
    )
    assert counted == [(10, 180), (11, 180), (12, 180)]


def test_an_attempt_that_is_made_again_judges_the_same_hours(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_: Settings, name: str) -> None:
        if name == failpoints.of_layer("silver", failpoints.AFTER_RESULTS):
            raise KeyboardInterrupt

    gates.add_bronze(clean_rows(RAW_EVENTS))
    gates.bronze_gate()
    with monkeypatch.context() as fault:
        fault.setattr(publication, "failpoint", kill)
        with pytest.raises(KeyboardInterrupt):
            gates.silver()
    assert gates.silver().passed
    attempts: Any = "select distinct attempt from dq_audit.quality_results where layer = 'silver'"
    assert gates.rows(attempts) == [(1,)]
    assert gates.rows(
        "select count(*) from dq_audit.profile_metrics where event_hour is not null and value = 'he'"
    ) == [(3,)]
