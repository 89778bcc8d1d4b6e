"""Expectations: do the hours and days that a range completes look like the same hours and days of the weeks before?

Pure functions over counts by hour, no Spark. What is judged is event time, never a cycle: an hour is complete when the hour after
the next has begun. Each hour is judged once, when it is complete, and each day with the first complete hour of a later one. Days
find a change in a small stream, where one hour has too few events to tell; hours find it soon in a large one.

An hour is compared with the same hour of the week, a day with the same weekday, as soon as there are enough of them. Before that
it is compared with the same hour of all days, or with all days, and has to differ from the few of its own weekday as well. Until
there is a whole week, the checks are learning.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from math import ceil, pi, sqrt
from statistics import median
from typing import Final

from wikistream_assets.quality.outcomes import computed, not_applicable
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import CheckOutcome, Rule
from wikistream_assets.quality.shapes import MIX_AS_USUAL, NO_MISSING_HOURS, VOLUME_AS_USUAL

HISTORY_DAYS: Final = 35
"""What is complete is compared with this many days before it: five values of each hour of the week."""
MIN_WEEKS: Final = 4
"""Values of the same hour of the week, or of the same weekday, that are enough by themselves."""
MIN_DAYS: Final = 7
"""Else values of the same hour of all days: a whole week, so that each weekday is among them."""

MAX_HOURS: Final = 24 * HISTORY_DAYS
"""Complete hours that one audit looks at, the newest: only a capture of months has more."""
MAX_OPEN_HOURS: Final = 48
"""Incomplete hours that are remembered, those with the most rows: a wild event time opens one that is never completed."""
MAX_VALUES: Final = 100
"""Values of a column that are counted by themselves in each hour; the others together are ``REST``."""
REST: Final = "(rest)"

VOLUME_BOUND: Final = 4.0
"""Robust z on the scale of twice the square root, where the standard deviation of Poisson noise is 1."""
SMALLEST_CHANGE: Final = 0.1
"""The unit of the robust z is at least this share of the usual volume, however quiet the history is."""

MIN_EXPECTED: Final = 20
"""Expected events of a category: that fewer than a tenth of them come by chance is next to impossible."""
VANISHED: Final = 0.1
"""A category with less than this share of its expected events has vanished."""
TAKEN_OVER: Final = 3.0
"""A category with more than this many times its usual share, and with ``MIN_SHARE`` of all events, has taken over."""
MIN_SHARE: Final = 0.1

MIN_USUAL: Final = 10
"""Usual events of an hour: that none come by chance is less likely than 1 in 20,000."""
USUALLY: Final = 0.75
"""Share of the days on which an hour has events, for it to be missed where it has none."""
MAX_HOLE_HOURS: Final = 48

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MAD_TO_SIGMA: Final = 1.4826
_MAX_TOLD: Final = 5
_MAX_KEPT: Final = 50

HourCounts = Mapping[datetime, Mapping[str, Mapping[str, int]]]
"""Beginning of the hour (UTC) -> column -> value -> events. Hours without events are absent. All others have the same columns;
an hour's events are the sum over any one of them."""


@dataclass
class _Found:
    """What one rule has found: how many figures it judged, and in words those that are out of bounds, by name."""

    judged: int = 0
    unusual: dict[str, str] = field(default_factory=dict)


def completed(
    open_before: Mapping[datetime, int], arrived: Mapping[datetime, int]
) -> tuple[list[datetime], dict[datetime, int]]:
    """Tell which hours a range completes.

    Args:
        open_before: hours that were incomplete before the range -> their rows.
        arrived: hours of the range -> its rows.

    Returns:
        The hours to judge, oldest first: later hours than the next have ten rows, or a twentieth of the hour's own, so that a
        single wild event time completes nothing. And the hours that stay open.
    """
    rows = Counter(open_before) + Counter(arrived)
    hours = sorted(rows)
    rows_from = [0]
    for hour in reversed(hours):
        rows_from.append(rows_from[-1] + rows[hour])
    rows_from.reverse()
    done = [hour for hour in hours if rows_from[bisect_left(hours, hour + 2 * _HOUR)] >= min(10, ceil(rows[hour] / 20))]
    still_open = sorted(rows.keys() - set(done), key=lambda hour: -rows[hour])[:MAX_OPEN_HOURS]
    return done[-MAX_HOURS:], {hour: rows[hour] for hour in sorted(still_open)}


def count_profiles(counts: HourCounts) -> list[ColumnProfile]:
    """The counts as rows of ``dq_audit.profile_metrics``, one for each hour, column and value."""
    return [
        ColumnProfile(column, rows, null_count=0, distinct_count=1, event_hour=hour, value=value)
        for hour, columns in counts.items()
        for column, values in columns.items()
        for value, rows in _largest(values).items()
    ]


def _largest(values: Mapping[str, int]) -> dict[str, int]:
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(rows for _, rows in ordered[MAX_VALUES:])
    return dict(ordered[:MAX_VALUES]) | ({REST: rest} if rest else {})


def history_begins(complete: Iterable[datetime]) -> datetime:
    """From when on ``expectation_outcomes`` wants to know the hours before these."""
    return _midnight(min(complete)) - HISTORY_DAYS * _DAY


def expectation_outcomes(
    rules: Sequence[Rule], table: str, complete: HourCounts, history: HourCounts
) -> list[CheckOutcome]:
    """The verdicts on the hours that a range has completed, and on the days that they complete.

    Args:
        rules: the table's rules.
        table: ``namespace.name`` of the audited table.
        complete: the hours to judge.
        history: the complete hours before the newest of them, since ``history_begins``. What it says of the hours to judge, as
            after an attempt that was blocked, is passed over.

    Returns:
        One outcome per rule about expectations: PASSED, WARNING, or SKIPPED while there is nothing to judge or too little to
        compare it with. The metric is the share of the judged figures within bounds; the keys name the others.
    """
    found = {name: _Found() for name in (VOLUME_AS_USUAL, MIX_AS_USUAL, NO_MISSING_HOURS)}
    reason = "no hour of event time was completed"
    history = {hour: counts for hour, counts in history.items() if hour not in complete}
    if complete:
        hours = _Series.of_hours({**history, **complete})
        days = _Series.of_days(hours)
        for series, periods in ((hours, sorted(complete)), (days, _new_days(days, complete, history))):
            for period in periods:
                _judge_volume(found[VOLUME_AS_USUAL], series, period)
                _judge_mix(found[MIX_AS_USUAL], series, period)
        _judge_holes(found[NO_MISSING_HOURS], hours, sorted(complete))
        reason = f"learning ({min(len(days.totals), MIN_DAYS)} of {MIN_DAYS} whole days)"
    return [_outcome(rule, table, found[rule.name], complete, reason) for rule in rules if rule.name in found]


def _outcome(rule: Rule, table: str, found: _Found, complete: HourCounts, reason: str) -> CheckOutcome:
    evidence = {"hours": [_name(hour) for hour in sorted(complete)[-_MAX_KEPT:]]} if complete else {}
    if not found.judged:
        return not_applicable(rule, table, reason, evidence=evidence)
    told = list(found.unusual.values())
    more = f"; and {len(told) - _MAX_TOLD} more" if len(told) > _MAX_TOLD else ""
    return computed(
        rule,
        table,
        metric=1 - len(told) / found.judged,
        ok=not told,
        message="; ".join(told[:_MAX_TOLD]) + more or f"{found.judged} figures as usual",
        evidence={**evidence, "judged": found.judged, "unusual": dict(list(found.unusual.items())[:_MAX_KEPT])},
        keys=tuple(found.unusual),
    )


class _Series:
    """Counts by hour or by day, and the earlier ones that each is compared with."""

    def __init__(self, counts: HourCounts, *, of_day: bool) -> None:
        self.of_day = of_day
        self.counts = counts
        self.columns = tuple(next(iter(counts.values()), {}))
        self.totals = {period: sum(counts[period][self.columns[0]].values()) for period in sorted(counts)}
        self.level = {period: _level(total) for period, total in self.totals.items()}
        self._slots: dict[Hashable, list[datetime]] = defaultdict(list)
        for period in self.totals:
            for slot in self._names(period):
                self._slots[slot].append(period)
        self._noise = self._measured_noise()

    @classmethod
    def of_hours(cls, counts: HourCounts) -> "_Series":
        return cls(counts, of_day=False)

    @classmethod
    def of_days(cls, hours: "_Series") -> "_Series":
        """The whole days: not the first, in which the stream may have begun, nor the newest, which goes on."""
        counts: dict[datetime, dict[str, Counter[str]]] = {}
        for hour in hours.totals:
            day = counts.setdefault(_midnight(hour), {column: Counter() for column in hours.columns})
            for column, values in hours.counts[hour].items():
                day[column].update(values)
        return cls({day: counts[day] for day in list(counts)[1:-1]}, of_day=True)

    def _names(self, period: datetime) -> tuple[Hashable, Hashable]:
        """The period's own slot in the week, and that of all days."""
        return (period.weekday(), period.hour), period.hour

    def past(self, period: datetime) -> list[list[datetime]]:
        """What the period is compared with, one or two lists of earlier periods; it has to differ from each. Empty: learning."""
        weekly, daily = (self._before(slot, period) for slot in self._names(period))
        if len(weekly) >= MIN_WEEKS:
            return [weekly]
        return [slot for slot in (daily, weekly) if slot] if len(daily) >= MIN_DAYS else []

    def _before(self, slot: Hashable, period: datetime) -> list[datetime]:
        periods = self._slots[slot]
        return periods[bisect_left(periods, period - HISTORY_DAYS * _DAY) : bisect_left(periods, period)]

    def _measured_noise(self) -> float:
        """Standard deviation of ``level``: the median distance of each period from the median of the others of its slot.

        Pooled over all slots, because the few values of one slot say little about how much they vary. The slots of all days,
        which also hold the rhythm of the week, only count until some weekday has come twice.
        """
        for slot in (0, 1):
            found = (self._from_others(period, slot) for period in self.totals)
            if distances := [distance for distance in found if distance is not None]:
                break
        return max(1.0, _MAD_TO_SIGMA * median(distances)) if distances else 1.0

    def _from_others(self, period: datetime, slot: int) -> float | None:
        others = [self.level[other] for other in self._slots[self._names(period)[slot]] if other != period]
        return abs(self.level[period] - median(others)) / _of_median(len(others)) if others else None

    def robust_z(self, period: datetime, past: Sequence[datetime]) -> float:
        """Distance from the median of ``past``, in units of what such a distance usually is."""
        usual = median(self.level[earlier] for earlier in past)
        unit = max(self._noise * _of_median(len(past)), SMALLEST_CHANGE / 2 * usual)
        return (self.level[period] - usual) / unit

    def share(self, period: datetime, column: str, value: str) -> float:
        return self.counts[period][column].get(value, 0) / self.totals[period]


def _level(events: float) -> float:
    """Anscombe's transform: of Poisson noise around any mean, the standard deviation is 1."""
    return 2 * sqrt(events + 3 / 8)


def _of_median(values: int) -> float:
    """Standard deviation of the distance between a value and the median of so many others, if theirs is 1."""
    return sqrt(1 + pi / 2 / values)


def _new_days(days: _Series, complete: HourCounts, history: HourCounts) -> list[datetime]:
    """The days of which later ones are known since these hours."""
    known = _midnight(max(history)) if history else None
    return [day for day in days.totals if day < _midnight(max(complete)) and (known is None or day >= known)]


def _judge_volume(found: _Found, series: _Series, period: datetime) -> None:
    past = series.past(period)
    if not past:
        return
    found.judged += 1
    if all(abs(series.robust_z(period, slot)) > VOLUME_BOUND for slot in past):
        name = _name(period, series.of_day)
        usual = median(series.totals[earlier] for earlier in past[0])
        found.unusual[name] = f"{name}: {series.totals[period]:,} events, usually {usual:,.0f}"


def _judge_mix(found: _Found, series: _Series, period: datetime) -> None:
    past = series.past(period)
    if not past:
        return
    found.judged += 1  # also where no category has enough events to miss
    total = series.totals[period]
    for column in series.columns:
        values = {value for p in (period, *past[0]) for value in series.counts[p][column]} - {REST}
        for value in sorted(values):
            shares = [[series.share(earlier, column, value) for earlier in slot] for slot in past]
            usual = [median(of_slot) for of_slot in shares]
            now = series.counts[period][column].get(value, 0)
            if max(min(usual) * total, now) < MIN_EXPECTED:
                continue
            found.judged += 1
            name = f"{_name(period, series.of_day)} {column} {value}"
            if now < VANISHED * min(usual) * total and _is_rare(share < VANISHED * usual[0] for share in shares[0]):
                found.unusual[name] = f"{name} has vanished: {now:,} events, {min(usual) * total:,.0f} expected"
            limit = max(MIN_SHARE, TAKEN_OVER * max(usual))
            by_chance = _level(now) - _level(max(usual) * total) <= VOLUME_BOUND
            if now > limit * total and not by_chance and _is_rare(share > limit for share in shares[0]):
                found.unusual[name] = f"{name} has taken over: {now / total:.0%} of the events, usually {usual[0]:.1%}"


def _is_rare(times: Iterable[bool]) -> bool:
    """Whether it has happened at most once before, or in a tenth of all cases: what comes and goes is usual."""
    cases = list(times)
    return sum(cases) <= max(1, len(cases) // 10)


def _judge_holes(found: _Found, hours: _Series, complete: Sequence[datetime]) -> None:
    known = list(hours.totals)
    for hour in complete:
        place = bisect_left(known, hour)
        before = known[place - 1] if place else hour
        hole = [before + n * _HOUR for n in range(1, int((hour - before) / _HOUR))]
        if len(hole) > MAX_HOLE_HOURS:
            hole = []
        for missing in (*hole, hour):
            usual = _usual(hours.totals, known[0], before, missing)
            if usual is None:
                continue
            found.judged += 1
            if missing != hour and usual >= MIN_USUAL:
                name = _name(missing)
                found.unusual[name] = f"{name}: no events, usually {usual:,.0f}"


def _usual(totals: Mapping[datetime, int], first: datetime, before: datetime, hour: datetime) -> float | None:
    """How many events the hour usually has, 0 where it often has none; None while nobody can tell.

    By the same hour of the days before, or in the first week by the 24 hours up to ``before``, the last one with events.
    """
    days = min((_midnight(hour) - _midnight(first)).days, HISTORY_DAYS)
    same = [totals[past] for day in range(1, days + 1) if (past := hour - day * _DAY) in totals]
    if days < MIN_DAYS:
        days, same = 24, [totals[past] for back in range(24) if (past := before - back * _HOUR) in totals]
        if before - first < _DAY - _HOUR:
            return None
    return median(same) if same and len(same) >= USUALLY * days else 0.0


def _midnight(moment: datetime) -> datetime:
    return datetime.combine(moment.date(), time(), UTC)


def _name(period: datetime, of_day: bool = False) -> str:
    return f"{period:%Y-%m-%d}" if of_day else f"{period:%Y-%m-%d %H}h"
