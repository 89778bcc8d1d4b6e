"""The quarantine budget: what share of the rows may go to quarantine before it is reported, and before the gate closes.

Pure functions over counts; the counts of earlier ranges come from the snapshot summaries of the quarantine itself. An operator's
decision is never held against the next range: rejected rows do not count, and accepting a breach clears what was counted so far.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wikistream_assets.quality.outcomes import computed, not_applicable
from wikistream_assets.quality.rule import MIN_RATIO_ROWS, CheckOutcome, Rule
from wikistream_assets.quality.shapes import QUARANTINE_BUDGET_DAY, QUARANTINE_BUDGET_RANGE

BUDGET_RULES: Final = (QUARANTINE_BUDGET_RANGE, QUARANTINE_BUDGET_DAY)

MAX_DAYS: Final = 7
"""Event dates whose counts are carried from one range to the next: those that were touched last, of one range the largest."""

NO_DATE: Final = "no date"


@dataclass(frozen=True)
class Tally:
    """Rows that Silver read and those of them that went to quarantine, without the ones that an operator sent there.

    Attributes:
        rules: row rule -> rows that broke it; a row can break several.
    """

    read: int = 0
    quarantined: int = 0
    rules: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        rules = dict(Counter(self.rules) + Counter(other.rules))
        return Tally(self.read + other.read, self.quarantined + other.quarantined, rules)

    @property
    def kept(self) -> float:
        """Share of the rows that reached Silver; 1 if none was read."""
        return (self.read - self.quarantined) / self.read if self.read else 1.0

    def as_json(self) -> dict[str, Any]:
        return {"read": self.read, "quarantined": self.quarantined, "rules": dict(self.rules)}


@dataclass(frozen=True)
class Spent:
    """What counts against the budget.

    Attributes:
        ranges: (rows read, rows quarantined) of the newest ranges, newest first: as many as a share needs.
        days: event date -> its rows so far, the dates that were touched last first.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    days: Mapping[str, Tally] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a snapshot's summary, which every later commit writes again: no more than ``MAX_DAYS``."""
        days = list(self.days.items())[:MAX_DAYS]
        return {
            "ranges": [list(counts) for counts in self.ranges],
            "days": [[day, tally.as_json()] for day, tally in days],
        }

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> "Spent":
        """The inverse of ``as_json``; nothing for a snapshot that was made before there was a budget."""
        if not stored:
            return cls()
        return cls(
            tuple((read, quarantined) for read, quarantined in stored["ranges"]),
            {day: Tally(**tally) for day, tally in stored["days"]},
        )


def tallies(
    read: Mapping[str, int], set_aside: Mapping[tuple[str, str], int], excused: Callable[[str], bool]
) -> dict[str, Tally]:
    """Count a range by event date.

    Args:
        read: event date -> rows of the range.
        set_aside: (event date, comma-separated reasons) -> rows of the range that went to quarantine.
        excused: whether rows with these reasons are in quarantine by an operator's decision: they count neither as read nor as
            quarantined.
    """
    days = {day: Tally(rows) for day, rows in read.items()}
    for (day, reasons), rows in set_aside.items():
        counted = Tally(-rows) if excused(reasons) else Tally(0, rows, dict.fromkeys(reasons.split(","), rows))
        days[day] = days.get(day, Tally()) + counted
    return days


def add_range(before: Spent, days: Mapping[str, Tally]) -> Spent:
    """``before`` and the ``tallies`` of a range."""
    total = sum(days.values(), Tally())
    ranges: list[tuple[int, int]] = []
    for read, quarantined in ((total.read, total.quarantined), *before.ranges):
        if sum(earlier for earlier, _ in ranges) >= MIN_RATIO_ROWS:
            break
        if read:
            ranges.append((read, quarantined))
    touched = sorted(days, key=lambda day: -days[day].read)
    merged = {day: before.days.get(day, Tally()) + days[day] for day in touched}
    merged |= {day: tally for day, tally in before.days.items() if day not in merged}
    return Spent(tuple(ranges), merged)


def forgiven(before: Spent, days: Mapping[str, Tally]) -> Spent:
    """What counts after an operator has accepted a breach in a range of these dates: they start again from nothing."""
    return Spent((), {day: tally for day, tally in before.days.items() if day not in days})


def budget_outcomes(
    rules: Sequence[Rule],
    table: str,
    spent: Spent,
    days: Mapping[str, Tally],
    *,
    keys: Callable[[], Sequence[str]],
    waived: Mapping[str, str],
) -> list[CheckOutcome]:
    """The verdicts on the quarantine's share of the range and of each day that the range touches.

    Args:
        rules: the table's rules.
        table: ``namespace.name`` of the audited table.
        spent: ``add_range`` of this range.
        days: ``tallies`` of this range.
        keys: returns the keys of quarantined rows of the range; called only where a bound is exceeded.
        waived: check name -> id of the operator's decision that accepts its breach in this range.

    Returns:
        One outcome per rule. The metric is the share of the rows that reached Silver; SKIPPED below ``MIN_RATIO_ROWS`` rows.
    """
    by_name = {rule.name: rule for rule in rules}
    this_range = sum(days.values(), Tally())
    read, quarantined = (sum(numbers) for numbers in zip((0, 0), *spent.ranges, strict=True))
    whole = Tally(read, quarantined, this_range.rules)
    earlier = f" of the range and of {read - this_range.read:,} rows before it" if read > this_range.read else ""
    touched = {day: spent.days[day] for day in days}
    judged = {day: tally for day, tally in touched.items() if tally.read >= MIN_RATIO_ROWS} or touched
    worst = min(judged, key=lambda day: judged[day].kept, default=NO_DATE)
    return [
        _judged(by_name[QUARANTINE_BUDGET_RANGE], table, whole, earlier or " of the range", keys, waived),
        _judged(
            by_name[QUARANTINE_BUDGET_DAY],
            table,
            judged.get(worst, Tally()),
            f" of {worst}",
            keys,
            waived,
            {"day": worst},
        ),
    ]


def _judged(
    rule: Rule,
    table: str,
    tally: Tally,
    of_what: str,
    keys: Callable[[], Sequence[str]],
    waived: Mapping[str, str],
    evidence: Mapping[str, Any] | None = None,
) -> CheckOutcome:
    told = {**tally.as_json(), **(evidence or {})}
    share = f"{tally.quarantined:,} of {tally.read:,} rows{of_what} went to quarantine"
    if tally.read < MIN_RATIO_ROWS:
        reason = f"{share}; a share is judged from {MIN_RATIO_ROWS:,} rows on"
        return not_applicable(rule, table, reason, evidence=told, records_checked=tally.read)
    within = rule.warn_below is None or tally.kept >= rule.warn_below
    broken = ", ".join(f"{name} {rows:,}" for name, rows in sorted(tally.rules.items(), key=lambda item: -item[1]))
    bounds = f"WARNING above {1 - (rule.warn_below or 0):.1%}, ERROR above {1 - rule.threshold:.0%}"
    return computed(
        rule,
        table,
        metric=tally.kept,
        ok=tally.kept >= rule.threshold,
        message=f"{share} ({1 - tally.kept:.2%}; {bounds}){f': {broken}' if broken else ''}",
        evidence=told,
        records_checked=tally.read,
        records_failed=tally.quarantined,
        keys=() if within else keys(),
        decision=waived.get(rule.name),
    )
