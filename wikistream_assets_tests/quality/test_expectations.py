"""Volume and mix against simulated weeks: the rhythm of day and week is no news, half, triple and vanished are."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from wikistream_assets.quality.expectations import (
    MAX_HOLE_HOURS,
    MAX_OPEN_HOURS,
    MAX_VALUES,
    MIN_DAYS,
    REST,
    HourCounts,
    completed,
    count_profiles,
    expectation_outcomes,
    history_begins,
)
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.quality.shapes import MIX_AS_USUAL, NO_MISSING_HOURS, VOLUME_AS_USUAL
from wikistream_assets.streams.edits.rules.silver import CLEANED_EVENTS_RULES
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS

CATEGORIES = tuple(column.name for column in CLEANED_EVENTS.having("hourly"))

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
HOUR = timedelta(hours=1)

WIKIS = {  # share of the events, language, region, hour of its peak
    "en.wikipedia.org": (0.4, "en", "americas", 20),
    "de.wikipedia.org": (0.25, "de", "europe", 17),
    "ja.wikipedia.org": (0.2, "ja", "asia_pacific", 9),
    "commons.wikimedia.org": (0.1, "mul", "other", 15),
    "he.wikipedia.org": (0.05, "he", "middle_east", 16),
}

Change = Callable[[datetime, str], float]
"""By what the expected events of a wiki are multiplied in an hour."""


def usual(_: datetime, __: str) -> float:
    return 1.0


def poisson(random: Random, mean: float) -> int:
    if mean > 60:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    number, product = 0, random.random()
    while product > math.exp(-mean):
        number, product = number + 1, product * random.random()
    return number


def weeks(seed: int, days: int, per_day: int, change: Change = usual) -> dict[datetime, dict[str, dict[str, int]]]:
    """Events by hour: busy evenings, weekends of three quarters, Poisson noise and a tenth of further noise by hour."""
    random, counts = Random(seed), {}
    for number in range(24 * days):
        hour = START + number * HOUR
        weekend = 0.75 if hour.weekday() >= 5 else 1.0
        busy = random.lognormvariate(0, 0.1)
        columns: dict[str, dict[str, int]] = {column: {} for column in CATEGORIES}
        for domain, (share, language, region, peak) in WIKIS.items():
            daily = 1 + 0.6 * math.cos((hour.hour - peak) * math.pi / 12)
            events = poisson(random, per_day / 24 * share * daily * weekend * busy * change(hour, domain))
            if events:
                for column, value in zip(CATEGORIES, (domain, region, language), strict=True):
                    columns[column][value] = columns[column].get(value, 0) + events
        if columns["domain"]:
            counts[hour] = columns
    return counts


def watch(counts: HourCounts) -> list[tuple[datetime, CheckOutcome]]:
    """Every verdict on these hours, audited one day of 24 hours at a time, with what has been counted before."""
    verdicts, hours = [], sorted(counts)
    for day in sorted({hour.date() for hour in hours}):
        complete = {hour: counts[hour] for hour in hours if hour.date() == day}
        history = {hour: counts[hour] for hour in hours if history_begins(complete) <= hour < min(complete)}
        outcomes = expectation_outcomes(CLEANED_EVENTS_RULES, "silver.t", complete, history)
        verdicts += [(max(complete), outcome) for outcome in outcomes]
    return verdicts


@pytest.mark.parametrize("per_day", [900, 50_000])
def test_thirty_clean_days_give_at_most_one_false_alarm(per_day: int) -> None:
    found = watch(weeks(1, 30, per_day))
    assert len([outcome for _, outcome in found if outcome.status is Status.WARNING]) <= 1
    assert {outcome.status for at, outcome in found if at >= START + timedelta(days=9)} >= {Status.PASSED}
    assert sum(outcome.status is Status.PASSED for _, outcome in found) >= 3 * 20, "it was judged"
    assert not any(outcome.status.blocks for _, outcome in found)


def on(day: int, factor: float, *domains: str) -> Change:
    """The events of one day (of some wikis) multiplied."""
    begin = START + timedelta(days=day)
    return lambda hour, domain: (
        factor if begin <= hour < begin + timedelta(days=1) and (not domains or domain in domains) else 1.0
    )


@pytest.mark.parametrize("day", [13, 31], ids=["by all days", "by the day of the week"])
@pytest.mark.parametrize("per_day", [900, 50_000])
@pytest.mark.parametrize(
    ("factor", "domains", "check", "told"),
    [
        (0.5, (), VOLUME_AS_USUAL, "usually"),
        (3.0, (), VOLUME_AS_USUAL, "usually"),
        (0.07, (), VOLUME_AS_USUAL, "usually"),
        (8.0, (), VOLUME_AS_USUAL, "usually"),
        (0.0, ("de.wikipedia.org",), MIX_AS_USUAL, "domain de.wikipedia.org has vanished: 0 events"),
        (0.0, tuple(WIKIS)[:1] + tuple(WIKIS)[2:], MIX_AS_USUAL, "domain en.wikipedia.org has vanished: 0 events"),
        (12.0, ("he.wikipedia.org",), MIX_AS_USUAL, "region middle_east has taken over"),
    ],
)
def test_injected_changes_are_found(
    per_day: int, day: int, factor: float, domains: tuple[str, ...], check: str, told: str
) -> None:
    found = expectation_of(weeks(2, day + 2, per_day, on(day, factor, *domains)), day)[check]
    name = f"{START + timedelta(days=day):%Y-%m-%d}"
    assert found.status is Status.WARNING
    assert any(key.startswith(name) for key in found.failing_keys)
    assert any(told in text for text in found.evidence["unusual"].values())


def expectation_of(counts: HourCounts, day: int) -> dict[str, CheckOutcome]:
    """The verdicts of one audit on all hours since the beginning of a day."""
    begin = START + timedelta(days=day)
    complete = {hour: columns for hour, columns in counts.items() if hour >= begin}
    history = {hour: columns for hour, columns in counts.items() if history_begins(complete) <= hour < begin}
    return {
        outcome.rule.name: outcome
        for outcome in expectation_outcomes(CLEANED_EVENTS_RULES, "silver.t", complete, history)
    }


def test_a_bad_day_is_told_once_and_its_aftermath_not_at_all() -> None:
    verdicts = [outcome for _, outcome in watch(weeks(3, 25, 900, on(18, 3.0))) if outcome.rule.name == VOLUME_AS_USUAL]
    told = [key for outcome in verdicts for key in outcome.failing_keys]
    assert told.count("2026-01-19") == 1
    assert all(key.startswith("2026-01-19") for key in told)


# ---- holes --------------------------------------------------------------------------------------------------------------------


def flat(days: int, events: int = 100, *, without: Callable[[datetime], bool] = lambda hour: False) -> HourCounts:
    """The same number of events each hour, but for some hours."""
    hours = (START + number * HOUR for number in range(24 * days))
    return {
        hour: {"domain": {"a": events}, "language": {"en": events}, "region": {"other": events}}
        for hour in hours
        if not without(hour)
    }


def at(day: int, *hours: int) -> Callable[[datetime], bool]:
    return lambda hour: hour.date() == (START + timedelta(days=day)).date() and hour.hour in hours


def test_an_hour_that_is_missing_between_others_is_named() -> None:
    found = expectation_of(flat(11, without=at(10, 5, 6)), 10)[NO_MISSING_HOURS]
    assert found.status is Status.WARNING
    assert found.failing_keys == ("2026-01-11 05h", "2026-01-11 06h")
    assert found.message == "2026-01-11 05h: no events, usually 100; 2026-01-11 06h: no events, usually 100"


def test_in_the_first_week_a_day_without_holes_is_enough_to_miss_an_hour() -> None:
    assert expectation_of(flat(3, without=at(2, 5)), 2)[NO_MISSING_HOURS].failing_keys == ("2026-01-03 05h",)
    first_day = expectation_of(flat(1, without=at(0, 5)), 0)[NO_MISSING_HOURS]
    assert (first_day.status, first_day.message) == (Status.SKIPPED, "learning (0 of 7 whole days)")


@pytest.mark.parametrize(
    "counts",
    [
        flat(12, events=9, without=at(11, 5)),
        flat(12, without=lambda hour: hour.hour in (3, 4, 5)),
    ],
    ids=["chance in a small stream", "an hour of the night that never has any"],
)
def test_an_empty_hour_that_is_usual_is_none(counts: HourCounts) -> None:
    assert expectation_of(counts, 11)[NO_MISSING_HOURS].status is Status.PASSED


def test_a_long_outage_is_not_told_by_the_hour() -> None:
    begin = START + timedelta(days=10)
    away = lambda hour: begin <= hour < begin + (MAX_HOLE_HOURS + 1) * HOUR  # noqa: E731
    assert expectation_of(flat(14, without=away), 10)[NO_MISSING_HOURS].status is Status.PASSED
    shorter = lambda hour: begin <= hour < begin + MAX_HOLE_HOURS * HOUR  # noqa: E731
    assert len(expectation_of(flat(14, without=shorter), 10)[NO_MISSING_HOURS].failing_keys) == MAX_HOLE_HOURS


# ---- learning, and what a cycle completes -----------------------------------------------------------------------------------


def test_until_there_is_a_whole_week_the_checks_are_learning() -> None:
    assert {outcome.message for outcome in expectation_of({}, 0).values()} == {"no hour of event time was completed"}
    for day in range(MIN_DAYS):
        found = expectation_of(flat(day + 1), day)
        assert (found[VOLUME_AS_USUAL].status, found[MIX_AS_USUAL].status) == (Status.SKIPPED, Status.SKIPPED)
    assert found[VOLUME_AS_USUAL].message == f"learning ({MIN_DAYS - 2} of {MIN_DAYS} whole days)"
    assert expectation_of(flat(MIN_DAYS + 1), MIN_DAYS)[VOLUME_AS_USUAL].status is Status.PASSED


def test_a_stream_too_small_to_miss_a_category_is_no_longer_learning_after_its_week() -> None:
    assert expectation_of(flat(MIN_DAYS + 1, events=3), MIN_DAYS)[MIX_AS_USUAL].status is Status.PASSED


def test_a_capture_of_an_hour_is_learning() -> None:
    hour = {START: flat(1)[START]}
    outcomes = expectation_outcomes(CLEANED_EVENTS_RULES, "silver.t", hour, {})
    assert {outcome.status for outcome in outcomes} == {Status.SKIPPED}
    assert {outcome.message for outcome in outcomes} == {"learning (0 of 7 whole days)"}


def hours(**rows: int) -> Mapping[datetime, int]:
    """``h5=3``: three rows in the hour from 5 o'clock on."""
    return {START + int(name[1:]) * HOUR: number for name, number in rows.items()}


@pytest.mark.parametrize(
    ("open_before", "arrived", "complete", "still_open"),
    [
        ({}, hours(h1=900, h2=900), [], hours(h1=900, h2=900)),
        (hours(h1=900, h2=900), hours(h2=1, h3=9), [], hours(h1=900, h2=901, h3=9)),
        (hours(h1=900, h2=901, h3=9), hours(h3=1), [1], hours(h2=901, h3=10)),
        ({}, hours(h1=20, h3=1), [1], hours(h3=1)),
        ({}, hours(h1=21, h3=1), [], hours(h1=21, h3=1)),
        ({}, hours(h1=900, h99=1), [], hours(h1=900, h99=1)),
        ({}, hours(h1=900, h2=900, h3=900, h4=900), [1, 2], hours(h3=900, h4=900)),
        (hours(h8=9, h9=5), hours(h1=1), [1], hours(h8=9, h9=5)),
    ],
    ids=["next hour", "nine later rows", "ten", "a twentieth", "less", "a wild time", "many at once", "late"],
)
def test_an_hour_is_complete_when_the_hour_after_the_next_has_begun(
    open_before: Mapping[datetime, int],
    arrived: Mapping[datetime, int],
    complete: list[int],
    still_open: Mapping[datetime, int],
) -> None:
    assert completed(open_before, arrived) == ([START + number * HOUR for number in complete], dict(still_open))


def test_what_is_remembered_is_bounded() -> None:
    wild = {START + timedelta(days=number): 1 for number in range(200)}
    assert len(completed(wild, {})[1]) <= MAX_OPEN_HOURS
    many = {START: {"domain": {f"d{number:03d}": 1000 - number for number in range(300)}}}
    rows = count_profiles(many)
    assert len(rows) == MAX_VALUES + 1
    assert (rows[-1].value, rows[-1].record_count) == (REST, sum(1000 - number for number in range(100, 300)))
    assert {row.event_hour for row in rows} == {START}


def test_an_attempt_that_is_made_again_comes_to_the_same_verdicts() -> None:
    counts = weeks(4, 12, 900, on(11, 3.0))
    begin = START + timedelta(days=11)
    complete = {hour: columns for hour, columns in counts.items() if hour >= begin}
    again = expectation_outcomes(CLEANED_EVENTS_RULES, "silver.t", complete, counts)
    assert again == list(expectation_of(counts, 11).values())
    assert again[0].status is Status.WARNING
