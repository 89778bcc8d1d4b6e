"""The quarantine's budget: both bounds from both sides, small ranges, days, and what an operator's decision leaves behind."""

import json
from collections.abc import Mapping, Sequence

import pytest

from wikistream_assets.quality.quarantine import MAX_DAYS, Spent, Tally, add_range, budget_outcomes, forgiven, tallies
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.quality.shapes import QUARANTINE_BUDGET_DAY, QUARANTINE_BUDGET_RANGE
from wikistream_assets.streams.edits.rules.silver import CLEANED_EVENTS_RULES

pytestmark = pytest.mark.unit

DAY = "2026-03-01"


def no_one(_: str) -> bool:
    return False


def rejected(reasons: str) -> bool:
    return reasons.startswith("rejected:")


def a_range(read: int, bad: int, day: str = DAY, rule: str = "negative_length") -> dict[str, Tally]:
    return tallies({day: read}, {(day, rule): bad} if bad else {}, rejected)


def judged(
    days: Mapping[str, Tally], before: Spent | None = None, waived: Mapping[str, str] | None = None
) -> dict[str, CheckOutcome]:
    asked = []

    def keys() -> Sequence[str]:
        asked.append(True)
        return ["e1", "e2"]

    spent = add_range(before or Spent(), days)
    outcomes = budget_outcomes(CLEANED_EVENTS_RULES, "silver.t", spent, days, keys=keys, waived=waived or {})
    assert [outcome.rule.name for outcome in outcomes] == [QUARANTINE_BUDGET_RANGE, QUARANTINE_BUDGET_DAY]
    told = [outcome for outcome in outcomes if outcome.status not in (Status.PASSED, Status.SKIPPED)]
    assert len(asked) == len(told), "keys are looked up only where they are told"
    assert all(outcome.failing_keys == ("e1", "e2") for outcome in told)
    return {outcome.rule.name: outcome for outcome in outcomes}


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (0, Status.PASSED),
        (10, Status.PASSED),
        (11, Status.WARNING),
        (200, Status.WARNING),
        (201, Status.FAILED),
        (1000, Status.FAILED),
    ],
)
def test_the_bounds_of_a_range(bad: int, status: Status) -> None:
    outcome = judged(a_range(1000, bad))[QUARANTINE_BUDGET_RANGE]
    assert outcome.status is status
    assert (outcome.records_checked, outcome.records_failed) == (1000, bad)
    assert outcome.metric == pytest.approx(1 - bad / 1000)


@pytest.mark.parametrize(
    ("bad", "status"), [(5, Status.PASSED), (6, Status.WARNING), (100, Status.WARNING), (101, Status.FAILED)]
)
def test_the_bounds_of_a_day(bad: int, status: Status) -> None:
    assert judged(a_range(1000, bad))[QUARANTINE_BUDGET_DAY].status is status


def test_the_verdict_names_the_rules_and_how_many_rows_broke_each() -> None:
    reasons = {(DAY, "negative_length"): 200, (DAY, "missing_user,negative_length"): 300, (DAY, "missing_user"): 100}
    outcome = judged(tallies({DAY: 600}, reasons, no_one))[QUARANTINE_BUDGET_RANGE]
    assert outcome.evidence["rules"] == {"negative_length": 500, "missing_user": 400}
    assert outcome.message.startswith("600 of 600 rows of the range went to quarantine (100.00%;")
    assert outcome.message.endswith(": negative_length 500, missing_user 400")


def test_a_small_range_is_judged_with_the_rows_before_it() -> None:
    before = add_range(Spent(), a_range(490, 0))
    first = judged(a_range(9, 9), before)
    assert {outcome.status for outcome in first.values()} == {Status.SKIPPED}, "499 rows"
    assert "9 of 499 rows" in first[QUARANTINE_BUDGET_RANGE].message
    second = judged(a_range(10, 10), before)
    assert second[QUARANTINE_BUDGET_RANGE].status is Status.WARNING, "10 of 500 are 2 %"
    assert "10 of 500 rows of the range and of 490 rows before it" in second[QUARANTINE_BUDGET_RANGE].message


def test_only_as_many_ranges_before_it_as_it_needs() -> None:
    spent = Spent()
    for _ in range(20):
        spent = add_range(spent, a_range(100, 0))
    assert sum(read for read, _ in spent.ranges) == 500
    for bad in range(1, 6):
        spent = add_range(spent, a_range(100, 100))
        assert sum(quarantined for _, quarantined in spent.ranges) == 100 * bad
    assert judged(a_range(100, 0), add_range(Spent(), a_range(900, 900)))[QUARANTINE_BUDGET_RANGE].status is (
        Status.FAILED
    )


def test_many_small_leaks_break_the_day_and_not_the_range() -> None:
    spent = Spent()
    for _ in range(9):
        spent = add_range(spent, a_range(500, 4))
    found = judged(a_range(500, 4), spent)
    assert [found[name].status for name in (QUARANTINE_BUDGET_RANGE, QUARANTINE_BUDGET_DAY)] == [
        Status.PASSED,
        Status.WARNING,
    ]
    assert "40 of 5,000 rows of 2026-03-01" in found[QUARANTINE_BUDGET_DAY].message


def test_one_bad_day_of_many_in_one_range_is_found() -> None:
    days = {f"2026-03-{day:02d}": Tally(900) for day in range(1, 31)} | a_range(900, 900, "2026-03-17")
    found = judged(days)
    assert found[QUARANTINE_BUDGET_RANGE].status is Status.WARNING, "a thirtieth of the range"
    assert found[QUARANTINE_BUDGET_DAY].status is Status.FAILED
    assert found[QUARANTINE_BUDGET_DAY].evidence["day"] == "2026-03-17"


def test_a_small_bad_day_is_not_what_the_others_are_judged_by() -> None:
    found = judged({**a_range(3, 3, "2001-01-01"), **a_range(900, 0)})
    assert found[QUARANTINE_BUDGET_DAY].status is Status.PASSED
    assert found[QUARANTINE_BUDGET_DAY].evidence["day"] == DAY


def test_rejected_rows_count_neither_as_read_nor_as_quarantined() -> None:
    days = tallies({DAY: 1100}, {(DAY, "rejected:ab12"): 500, (DAY, "missing_user"): 6}, rejected)
    found = judged(days)
    assert (days[DAY].read, days[DAY].quarantined) == (600, 6)
    assert found[QUARANTINE_BUDGET_RANGE].status is Status.PASSED, "6 of 600 are 1 %"
    assert judged(tallies({DAY: 900}, {(DAY, "rejected:ab12"): 900}, rejected))[QUARANTINE_BUDGET_RANGE].status is (
        Status.SKIPPED
    ), "nothing is left to judge"


def test_what_was_accepted_is_not_held_against_the_next_range() -> None:
    days = a_range(600, 600)
    accepted = judged(days, waived={QUARANTINE_BUDGET_RANGE: "d1 (ada: seen)", QUARANTINE_BUDGET_DAY: "d2 (ada: seen)"})
    assert {outcome.status for outcome in accepted.values()} == {Status.WARNING}
    assert accepted[QUARANTINE_BUDGET_RANGE].message.startswith("accepted by decision d1 (ada: seen): 600 of 600")
    other_day = add_range(Spent(), a_range(900, 1, "2026-02-28"))
    assert judged(a_range(10, 0), forgiven(other_day, days))[QUARANTINE_BUDGET_RANGE].status is Status.SKIPPED
    assert judged(a_range(600, 0), forgiven(other_day, days))[QUARANTINE_BUDGET_DAY].status is Status.PASSED
    assert forgiven(other_day, days).days == other_day.days


def test_what_has_been_spent_survives_its_way_through_a_snapshot() -> None:
    spent = add_range(add_range(Spent(), a_range(400, 3, "2026-02-28")), a_range(300, 2))
    stored = json.loads(json.dumps(spent.as_json(), sort_keys=True))
    assert Spent.of(stored) == spent
    assert list(Spent.of(stored).days) == [DAY, "2026-02-28"], "the newest first"
    assert Spent.of(None) == Spent()


def test_no_more_days_are_carried_than_a_summary_should_hold() -> None:
    days = {f"2001-01-{day:02d}": Tally(1) for day in range(1, 29)} | a_range(900, 5)
    carried = Spent.of(add_range(Spent(), days).as_json())
    assert len(carried.days) == MAX_DAYS
    assert carried.days[DAY] == Tally(900, 5, {"negative_length": 5}), "the largest is kept"
