"""The quarantine's budget in Silver's gate: what a range sends to quarantine, and what the ranges before it have sent.

What has been spent stands in the quarantine's own snapshot summaries: it costs no query, and it goes back with a rollback.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.lake.state import Version
from wikistream_assets.quality.quarantine import (
    BUDGET_RULES,
    NO_DATE,
    Spent,
    Tally,
    add_range,
    budget_outcomes,
    forgiven,
    tallies,
)
from wikistream_assets.quality.rule import MAX_FAILING_KEYS, CheckOutcome
from wikistream_assets.streams.declaration import Hour
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.marks import FAILED_RULES, REJECTED_PREFIX

_SPENT: Final = "budget"
"""In the counts of the quarantine's snapshots."""

Reasons = Counter[tuple[Hour, str]]
"""Rows that go to quarantine, by hour and comma-separated reasons."""


@dataclass(frozen=True)
class RangeBudget:
    """What one range means for the budget.

    Attributes:
        days: its rows by event date, and those of them that go to quarantine.
        spent: what has been spent with it.
        carried: for the counts of the quarantine's snapshot: what the next range builds on.
    """

    days: Mapping[str, Tally]
    spent: Spent
    carried: dict[str, Any]


def reasons_by_hour(marked: DataFrame) -> Reasons:
    """Count the rows of ``split`` that must not enter Silver."""
    bad = marked.where(sf.col(FAILED_RULES).isNotNull())
    counted = bad.groupBy("event_date", sf.hour("event_timestamp").alias("hour"), FAILED_RULES).count().collect()
    return Counter({((row["event_date"], row["hour"]), row[FAILED_RULES]): row["count"] for row in counted})


def of_hours(set_aside: Reasons) -> Counter[Hour]:
    """The same by hour alone."""
    hours: Counter[Hour] = Counter()
    for (hour, _), rows in set_aside.items():
        hours[hour] += rows
    return hours


def range_budget(
    before: Version | None,
    hours: Counter[Hour],
    set_aside: Reasons,
    accepted_with: Mapping[str, tuple[str, ...]],
    waived_upstream: Mapping[str, str],
    waived: Mapping[str, str],
) -> RangeBudget:
    """Add a range to what has been spent.

    Args:
        before: the quarantine's newest version.
        hours: upstream rows of the range by hour.
        accepted_with: as ``declaration.Append``.
        waived_upstream: the checks of the upstream table whose breach an operator has accepted within this range.
        waived: the checks of the table itself whose breach was accepted for this range.
    """
    read: Counter[str] = Counter()
    for (day, _), rows in hours.items():
        read[day or NO_DATE] += rows
    reasons: Counter[tuple[str, str]] = Counter()
    for ((day, _), failed_rules), rows in set_aside.items():
        reasons[day or NO_DATE, failed_rules] += rows
    spent_before = Spent.of((before.counts or {}).get(_SPENT) if before else None)
    days = tallies(read, reasons, _excused(accepted_with, waived_upstream))
    spent = add_range(spent_before, days)
    carried = forgiven(spent_before, days) if waived.keys() & set(BUDGET_RULES) else spent
    return RangeBudget(days, spent, {_SPENT: carried.as_json()})


def _excused(accepted_with: Mapping[str, tuple[str, ...]], waived_upstream: Mapping[str, str]) -> Callable[[str], bool]:
    """Whether rows with these reasons are in quarantine by decision: rejected, or for what was accepted upstream."""
    accepted = {reason for reason, names in accepted_with.items() if waived_upstream.keys() & set(names)}

    def excused(failed_rules: str) -> bool:
        return REJECTED_PREFIX in failed_rules or accepted.issuperset(failed_rules.split(","))

    return excused


def judge_budget(
    spec: TableSpec, budget: RangeBudget, quarantine: TableSpec, rows: DataFrame, waived: Mapping[str, str]
) -> list[CheckOutcome]:
    """The verdicts of ``spec`` on the budget; ``rows`` are those of the quarantine that the range has sent there."""

    def keys() -> list[str]:
        by_rule = rows.where(~sf.col(FAILED_RULES).contains(REJECTED_PREFIX)).select(*quarantine.key)
        first = by_rule.orderBy(*quarantine.key).limit(MAX_FAILING_KEYS).collect()
        return ["/".join(map(str, row)) for row in first]

    return budget_outcomes(spec.rules, spec.identifier, budget.spent, budget.days, keys=keys, waived=waived)
