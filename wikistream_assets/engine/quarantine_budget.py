"""The quarantine's budget in Silver's gate: what a range sends to quarantine, and what the ranges before it have sent.

What has been spent stands in the quarantine's own snapshot summaries: it costs no query, and it goes back with a rollback.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.engine.context import JobContext, SnapshotRange
from wikistream_assets.engine.gate import Hour
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import read_range
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
from wikistream_assets.streams.edits.cleaned_events import DUPLICATE_EVENT_ID, FAILED_RULES, REJECTED_PREFIX
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE

_SPENT: Final = "budget"
"""In the counts of the quarantine's snapshots."""

ACCEPTED_WITH: Final[Mapping[str, tuple[str, ...]]] = {
    DUPLICATE_EVENT_ID: ("event_id_unique", "kafka_position_unique"),
    "missing_user": ("user_completeness",),
    "missing_title": ("title_completeness",),
    "unknown_event_type": ("event_type_valid",),
}
"""Reason -> checks of Bronze that look for the same: who accepts such a breach there need not accept it again in Silver."""

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
    lake: Lakehouse,
    hours: Counter[Hour],
    set_aside: Reasons,
    waived_in_bronze: Mapping[str, str],
    waived: Mapping[str, str],
) -> RangeBudget:
    """Add a range to what has been spent.

    Args:
        hours: Bronze rows of the range by hour.
        waived_in_bronze: the checks of Bronze whose breach an operator has accepted within this range.
        waived: the checks of Silver whose breach was accepted for this range.
    """
    read: Counter[str] = Counter()
    for (day, _), rows in hours.items():
        read[day or NO_DATE] += rows
    reasons: Counter[tuple[str, str]] = Counter()
    for ((day, _), failed_rules), rows in set_aside.items():
        reasons[day or NO_DATE, failed_rules] += rows
    newest = lake.state(QUARANTINE).newest_position()
    before = Spent.of((newest.counts or {}).get(_SPENT) if newest else None)
    days = tallies(read, reasons, _excused(waived_in_bronze))
    spent = add_range(before, days)
    carried = forgiven(before, days) if waived.keys() & set(BUDGET_RULES) else spent
    return RangeBudget(days, spent, {_SPENT: carried.as_json()})


def _excused(waived_in_bronze: Mapping[str, str]) -> Callable[[str], bool]:
    """Whether rows with these reasons are in quarantine by decision: rejected, or for what was accepted in Bronze."""
    accepted = {reason for reason, names in ACCEPTED_WITH.items() if waived_in_bronze.keys() & set(names)}

    def excused(failed_rules: str) -> bool:
        return REJECTED_PREFIX in failed_rules or accepted.issuperset(failed_rules.split(","))

    return excused


def judge_budget(
    ctx: JobContext, budget: RangeBudget, set_aside: SnapshotRange, waived: Mapping[str, str]
) -> list[CheckOutcome]:
    """The verdicts on the budget; ``set_aside`` are the quarantine's snapshots of the range."""

    def keys() -> list[str]:
        rows = read_range(ctx.spark, QUARANTINE, set_aside.start, set_aside.end)
        by_rule = rows.where(~sf.col(FAILED_RULES).contains(REJECTED_PREFIX)).select(*QUARANTINE.key)
        first = by_rule.orderBy(*QUARANTINE.key).limit(MAX_FAILING_KEYS).collect()
        return ["/".join(map(str, row)) for row in first]

    return budget_outcomes(
        CLEANED_EVENTS.rules, CLEANED_EVENTS.identifier, budget.spent, budget.days, keys=keys, waived=waived
    )
