"""Drift: does the audited range look like the last seven days? Pure functions over profiles, no Spark.

Three rules: the share of nulls of each profiled column; the shares of categories (population stability index); location and tail
of numeric columns (robust z). Profiles come from ``dq_audit.profile_metrics``. It has no place for category counts, so
the category rule keeps them in the evidence of its own verdicts, and its baseline is read from ``dq_audit.quality_results``.

Every attempt that was profiled is in the baseline, also one whose gate blocked. There is no hour-of-week baseline here:
columns that follow the sun (region, language) are judged in ``expectations``.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from wikistream_assets.quality.outcomes import computed, not_applicable
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import MIN_RATIO_ROWS, CheckOutcome, Rule
from wikistream_assets.quality.shapes import DRIFT_CATEGORIES, DRIFT_NULL_RATE, DRIFT_NUMERIC

MIN_BASELINE_RUNS: Final = 10
"""Earlier runs of at least ``MIN_RATIO_ROWS`` rows that are needed before drift is judged; until then the check is learning."""

NUMERIC_STATISTICS: Final = ("mean_value", "p50", "p95")

PROFILE_FIELDS: Final = ("column_name", "record_count", "null_count", "p25", "p75", *NUMERIC_STATISTICS)
"""What is looked at of an earlier profile, which may be one of 100,000."""

_MAD_TO_SIGMA: Final = 1.4826  # the median absolute deviation of a normal distribution is its sigma / 1.4826
_SMALLEST_SCALE: Final = 1e-9

CategoryCounts = Mapping[str, Mapping[str, int]]
"""Column -> value -> rows."""

_History = dict[str, list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Bounds:
    """A figure above ``warn`` is drift; above ``alert`` it is called so in the verdict. Neither blocks."""

    warn: float
    alert: float

    def level(self, figure: float) -> str:
        """``ok``, ``warn`` or ``alert``."""
        return "alert" if figure > self.alert else "warn" if figure > self.warn else "ok"


NULL_RATE_BOUNDS: Final = Bounds(warn=0.10, alert=0.20)
"""Change of the share of nulls."""

PSI_BOUNDS: Final = Bounds(warn=0.25, alert=0.5)

ROBUST_Z_BOUNDS: Final = Bounds(warn=5.0, alert=10.0)


@dataclass(frozen=True)
class _Figure:
    """One figure beside its baseline; ``distance`` is what the bounds are for."""

    now: float
    baseline: float
    distance: float


@dataclass(frozen=True)
class _Comparison:
    """What one rule judges: its figures by name, against a baseline of ``runs`` runs; ``evidence`` is kept in any case."""

    figures: dict[str, _Figure]
    bounds: Bounds
    runs: int
    evidence: dict[str, Any] = field(default_factory=dict)


def population_stability_index(current: Mapping[str, int], baseline: Mapping[str, int]) -> float:
    """Sum of (p - q) * ln(p / q) over all categories of either side; 0 means equal shares.

    Half a row is added to each category, so that one that is missing on a side counts much but not infinitely.
    """
    categories = current.keys() | baseline.keys()
    size_now = sum(current.values()) + len(categories) / 2
    size_then = sum(baseline.values()) + len(categories) / 2
    shares = (
        ((current.get(name, 0) + 0.5) / size_now, (baseline.get(name, 0) + 0.5) / size_then) for name in categories
    )
    return sum((now - then) * math.log(now / then) for now, then in shares)


def robust_z(value: float, history: Sequence[float], smallest_scale: float = 0.0) -> float:
    """Distance of ``value`` from the median of ``history``, in units of its MAD scaled to a standard deviation.

    Args:
        value: the figure to judge.
        history: earlier figures, at least one.
        smallest_scale: lower bound of the unit: half of a history that repeats itself has a MAD of 0.
    """
    centre = median(history)
    deviation = _MAD_TO_SIGMA * median(abs(figure - centre) for figure in history)
    return (value - centre) / max(deviation, smallest_scale, _SMALLEST_SCALE)


def earlier_counts(evidence: Iterable[str]) -> list[CategoryCounts]:
    """Category counts of earlier runs.

    Args:
        evidence: column ``evidence`` of earlier ``drift_categories`` rows of ``dq_audit.quality_results``.
    """
    return [counts for text in evidence if (counts := json.loads(text).get("counts"))]


def drift_outcomes(
    rules: Sequence[Rule],
    table: str,
    profiles: Sequence[ColumnProfile],
    counts: CategoryCounts,
    numbers: Collection[str],
    *,
    earlier_profiles: Sequence[Mapping[str, Any]],
    earlier_categories: Sequence[CategoryCounts],
) -> list[CheckOutcome]:
    """The verdicts on those of ``rules`` that are about drift.

    Args:
        rules: the table's rules.
        table: ``namespace.name`` of the audited table.
        profiles: of the audited range.
        counts: ``profile.category_counts`` of the audited range.
        numbers: the columns whose location and tail are compared.
        earlier_profiles: ``PROFILE_FIELDS`` of this table's rows in ``dq_audit.profile_metrics`` over the baseline's days.
        earlier_categories: ``earlier_counts`` of the same days.

    Returns:
        One outcome per rule: PASSED, WARNING, or SKIPPED while there is too little to compare. The metric is the share of
        compared figures within bounds; the evidence has each figure, its baseline, its distance and its level.
    """
    rows = profiles[0].record_count if profiles else 0
    history = _by_column(earlier_profiles)
    large = [past for past in earlier_categories if _size(past) >= MIN_RATIO_ROWS]
    runs = min((len(history.get(profile.column_name, [])) for profile in profiles), default=0)
    comparisons = {
        DRIFT_NULL_RATE: _Comparison(_null_rates(profiles, history), NULL_RATE_BOUNDS, runs),
        DRIFT_CATEGORIES: _Comparison(_categories(counts, large), PSI_BOUNDS, len(large), {"counts": counts}),
        DRIFT_NUMERIC: _Comparison(_numbers(profiles, numbers, history), ROBUST_Z_BOUNDS, runs),
    }
    return [_judged(rule, table, rows, comparisons[rule.name]) for rule in rules if rule.name in comparisons]


def _judged(rule: Rule, table: str, rows: int, comparison: _Comparison) -> CheckOutcome:
    if reason := _reason_to_skip(rows, comparison):
        return not_applicable(rule, table, reason, evidence=comparison.evidence, records_checked=rows)
    figures, bounds = comparison.figures, comparison.bounds
    levels = {name: bounds.level(figure.distance) for name, figure in figures.items()}
    drifted = {name: level for name, level in levels.items() if level != "ok"}
    return computed(
        rule,
        table,
        metric=1 - len(drifted) / len(figures),
        ok=not drifted,
        message="; ".join(_described(name, figures[name], level) for name, level in drifted.items())
        or f"{len(figures)} figures within {bounds.warn:g} of the baseline of {comparison.runs} runs",
        evidence={
            **comparison.evidence,
            "bounds": asdict(bounds),
            "baseline_runs": comparison.runs,
            "level": "alert" if "alert" in drifted.values() else "warn" if drifted else "ok",
            "figures": {name: {**asdict(figure), "level": levels[name]} for name, figure in figures.items()},
        },
        records_checked=rows,
    )


def _reason_to_skip(rows: int, comparison: _Comparison) -> str | None:
    if rows < MIN_RATIO_ROWS:
        return f"{rows:,} rows, drift is judged from {MIN_RATIO_ROWS:,} on"
    if comparison.runs < MIN_BASELINE_RUNS:
        return f"learning ({comparison.runs} of {MIN_BASELINE_RUNS} runs)"
    return None if comparison.figures else "no values to compare"


def _described(name: str, figure: _Figure, level: str) -> str:
    return f"{name} {figure.now:.4g}, baseline {figure.baseline:.4g}, distance {figure.distance:.3g} ({level})"


def _by_column(earlier: Sequence[Mapping[str, Any]]) -> _History:
    history: _History = {}
    for row in earlier:
        if row["record_count"] >= MIN_RATIO_ROWS:
            history.setdefault(row["column_name"], []).append(row)
    return history


def _size(counts: CategoryCounts) -> int:
    return max((sum(values.values()) for values in counts.values()), default=0)


def _null_rates(profiles: Sequence[ColumnProfile], history: _History) -> dict[str, _Figure]:
    figures = {}
    for profile in profiles:
        if past := history.get(profile.column_name):
            baseline = sum(row["null_count"] for row in past) / sum(row["record_count"] for row in past)
            figures[profile.column_name] = _Figure(profile.null_rate, baseline, abs(profile.null_rate - baseline))
    return figures


def _categories(counts: CategoryCounts, earlier: Sequence[CategoryCounts]) -> dict[str, _Figure]:
    figures = {}
    for column, current in counts.items():
        baseline: Counter[str] = Counter()
        for past in earlier:
            baseline.update(past.get(column, {}))
        if baseline:
            index = population_stability_index(current, baseline)
            figures[column] = _Figure(now=index, baseline=0.0, distance=index)
    return figures


def _numbers(profiles: Sequence[ColumnProfile], numbers: Collection[str], history: _History) -> dict[str, _Figure]:
    figures = {}
    for profile in profiles:
        past = [row for row in history.get(profile.column_name, []) if row["p50"] is not None]
        if profile.column_name not in numbers or profile.p50 is None or not past:
            continue
        # A tenth of the usual interquartile range: less is no change that anyone would see.
        smallest_scale = 0.1 * median(row["p75"] - row["p25"] for row in past)
        for statistic in NUMERIC_STATISTICS:
            now, then = getattr(profile, statistic), [row[statistic] for row in past]
            distance = abs(robust_z(now, then, smallest_scale))
            figures[f"{profile.column_name}.{statistic}"] = _Figure(now, median(then), distance)
    return figures
