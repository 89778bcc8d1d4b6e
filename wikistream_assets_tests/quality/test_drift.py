"""Drift is judged by distance from seven days of runs: each level, the learning state, and what never counts."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from wikistream_assets.quality.drift import (
    MIN_BASELINE_RUNS,
    Bounds,
    drift_outcomes,
    earlier_counts,
    population_stability_index,
    robust_z,
)
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.quality.shapes import DRIFT_CATEGORIES, DRIFT_NULL_RATE, DRIFT_NUMERIC
from wikistream_assets.streams.edits.rules.silver import CLEANED_EVENTS_RULES

pytestmark = pytest.mark.unit

USUAL_COUNTS = {"event_type": {"edit": 700, "new": 100, "log": 200}, "user_kind": {"registered": 800, "bot": 200}}


def sizes(
    *, rows: int = 1000, nulls: int = 200, mean: float = 150.0, p50: float = 18.0, p95: float = 900.0
) -> ColumnProfile:
    """A profile of length_delta with an interquartile range of 60 bytes."""
    return ColumnProfile("length_delta", rows, nulls, 300, mean, 500.0, -9000.0, 60000.0, -10.0, p50, 50.0, p95)


def earlier(profile: ColumnProfile) -> dict[str, Any]:
    """The profile as a row of ``dq_audit.profile_metrics`` holds it."""
    return {**vars(profile), "null_rate": profile.null_rate}


BASELINE = [earlier(sizes(mean=150.0 + number, p95=900.0 + 10 * number)) for number in range(-5, 6)]


def judged(
    profile: ColumnProfile | None = None,
    counts: Mapping[str, Mapping[str, int]] = USUAL_COUNTS,
    baseline: list[dict[str, Any]] = BASELINE,
    categories: int = MIN_BASELINE_RUNS,
) -> dict[str, CheckOutcome]:
    outcomes = drift_outcomes(
        CLEANED_EVENTS_RULES,
        "silver.cleaned_events",
        [profile or sizes()],
        counts,
        ["length_delta"],
        earlier_profiles=baseline,
        earlier_categories=[USUAL_COUNTS] * categories,
    )
    assert [outcome.rule.name for outcome in outcomes] == [DRIFT_NULL_RATE, DRIFT_CATEGORIES, DRIFT_NUMERIC]
    return {outcome.rule.name: outcome for outcome in outcomes}


def test_the_usual_passes() -> None:
    for outcome in judged().values():
        assert outcome.status is Status.PASSED
        assert outcome.metric == 1.0
        assert outcome.evidence["level"] == "ok"
        assert outcome.records_checked == 1000


@pytest.mark.parametrize(
    ("nulls", "status", "level"),
    [
        (300, Status.PASSED, "ok"),
        (301, Status.WARNING, "warn"),
        (400, Status.WARNING, "warn"),
        (401, Status.WARNING, "alert"),
        (99, Status.WARNING, "warn"),
    ],
)
def test_null_rate_levels_in_points_from_the_baseline_of_20_percent(nulls: int, status: Status, level: str) -> None:
    outcome = judged(sizes(nulls=nulls))[DRIFT_NULL_RATE]

    assert (outcome.status, outcome.evidence["level"]) == (status, level)
    figure = outcome.evidence["figures"]["length_delta"]
    assert figure["baseline"] == pytest.approx(0.2)
    assert figure["distance"] == pytest.approx(abs(nulls - 200) / 1000)
    assert ("length_delta" in outcome.message) == (status is Status.WARNING)


def test_the_null_rate_of_the_baseline_weighs_runs_by_their_rows() -> None:
    baseline = [earlier(sizes(rows=9000, nulls=900))] + [earlier(sizes(rows=500, nulls=500))] * 10

    figure = judged(baseline=baseline)[DRIFT_NULL_RATE].evidence["figures"]["length_delta"]

    assert figure["baseline"] == pytest.approx((900 + 5000) / (9000 + 5000))


@pytest.mark.parametrize(
    ("kinds", "level"),
    [
        ({"registered": 790, "bot": 210}, "ok"),
        ({"registered": 550, "bot": 450}, "warn"),
        ({"registered": 300, "bot": 700}, "alert"),
    ],
)
def test_category_levels(kinds: dict[str, int], level: str) -> None:
    outcome = judged(counts={**USUAL_COUNTS, "user_kind": kinds})[DRIFT_CATEGORIES]

    assert outcome.evidence["figures"]["user_kind"]["level"] == level
    assert outcome.evidence["figures"]["event_type"]["level"] == "ok"
    assert outcome.status is (Status.PASSED if level == "ok" else Status.WARNING)
    assert outcome.metric == (1.0 if level == "ok" else 0.5)


@pytest.mark.parametrize(
    ("p50", "level"), [(18.0, "ok"), (47.9, "ok"), (48.1, "warn"), (78.1, "alert"), (-20.0, "warn")]
)
def test_numeric_levels_in_tenths_of_the_interquartile_range(p50: float, level: str) -> None:
    """The median never moved in the baseline, so the unit is a tenth of 60 bytes: 5 units are 30 bytes."""
    outcome = judged(sizes(p50=p50))[DRIFT_NUMERIC]

    assert outcome.evidence["figures"]["length_delta.p50"]["level"] == level
    assert outcome.evidence["level"] == level


def test_counts_are_kept_in_every_verdict_so_that_later_runs_have_a_baseline() -> None:
    passed = judged()[DRIFT_CATEGORIES]
    learning = judged(categories=0)[DRIFT_CATEGORIES]

    assert passed.evidence["counts"] == learning.evidence["counts"] == USUAL_COUNTS
    assert earlier_counts(['{"counts": {"event_type": {"edit": 3}}}', "{}"]) == [{"event_type": {"edit": 3}}]


def test_too_few_earlier_runs_is_learning() -> None:
    outcomes = judged(baseline=BASELINE[:9], categories=9)

    assert {outcome.status for outcome in outcomes.values()} == {Status.SKIPPED}
    assert {outcome.message for outcome in outcomes.values()} == {"learning (9 of 10 runs)"}


def test_small_runs_are_no_baseline() -> None:
    small = {"event_type": {"edit": 499}, "user_kind": {"bot": 499}}
    outcomes = drift_outcomes(
        CLEANED_EVENTS_RULES,
        "silver.cleaned_events",
        [sizes()],
        USUAL_COUNTS,
        ["length_delta"],
        earlier_profiles=[earlier(sizes(rows=499))] * 20,
        earlier_categories=[small] * 20,
    )

    assert {outcome.message for outcome in outcomes} == {"learning (0 of 10 runs)"}


def test_a_small_range_is_not_judged() -> None:
    outcomes = judged(sizes(rows=499, nulls=499))

    assert {outcome.status for outcome in outcomes.values()} == {Status.SKIPPED}
    assert all(outcome.message.startswith("499 rows") for outcome in outcomes.values())


def test_a_column_without_numbers_has_nothing_to_compare() -> None:
    outcome = judged(ColumnProfile("length_delta", 1000, 1000, 0))[DRIFT_NUMERIC]

    assert (outcome.status, outcome.message) == (Status.SKIPPED, "no values to compare")


def test_drift_never_blocks() -> None:
    outcomes = judged(sizes(nulls=1000, mean=1e9, p50=1e6, p95=1e9), counts={"event_type": {"log": 1000}})

    assert {outcome.status for outcome in outcomes.values()} == {Status.WARNING}
    assert not any(outcome.status.blocks for outcome in outcomes.values())
    assert {outcome.evidence["level"] for outcome in outcomes.values()} == {"alert"}


def test_psi_is_zero_for_equal_shares_whatever_the_size() -> None:
    assert population_stability_index({"a": 30, "b": 70}, {"a": 30, "b": 70}) == 0
    assert population_stability_index({"a": 3000, "b": 7000}, {"a": 30000, "b": 70000}) == pytest.approx(0, abs=1e-6)


def test_psi_by_hand() -> None:
    """Shares with half a row added: 10.5/41 and 30.5/41 against 20.5/41 twice."""
    moved = 10 / 41 * math.log(20.5 / 10.5) + 10 / 41 * math.log(30.5 / 20.5)

    assert population_stability_index({"a": 10, "b": 30}, {"a": 20, "b": 20}) == pytest.approx(moved)


def test_psi_of_a_new_category_is_large_but_finite() -> None:
    assert 1 < population_stability_index({"new": 1000}, {"old": 1000}) < 100


def test_robust_z_by_hand() -> None:
    history = [10.0, 12.0, 11.0, 9.0, 1000.0]  # median 11, deviations 1 1 0 2 989, their median 1

    assert robust_z(13.0, history) == pytest.approx(2 / 1.4826)
    assert robust_z(13.0, history, smallest_scale=4.0) == pytest.approx(0.5)
    assert math.isfinite(robust_z(13.0, [11.0, 11.0]))


def test_a_bound_belongs_to_the_level_below() -> None:
    bounds = Bounds(warn=1.0, alert=2.0)

    assert [bounds.level(figure) for figure in (1.0, 1.1, 2.0, 2.1)] == ["ok", "warn", "warn", "alert"]
