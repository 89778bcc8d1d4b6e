"""The profile of a table's columns: the figures that drift is judged by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf
from pyspark.sql.types import NumericType

_PERCENTILES: Final = (0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class ColumnProfile:
    """Statistics of one column, one row of ``dq_audit.profile_metrics``.

    Attributes:
        record_count: rows profiled, nulls included.
        null_count / distinct_count: null rows, distinct non-null values; exact.
        mean_value .. p95: numeric columns with at least one value only, else None; the standard deviation is the sample's (None
            for a single value), percentiles interpolate linearly.
        event_hour / value: of a complete hour's count, the hour and the value that was counted; None for the profile of a range.
    """

    column_name: str
    record_count: int
    null_count: int
    distinct_count: int
    mean_value: float | None = None
    stddev_value: float | None = None
    min_value: float | None = None
    max_value: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    p95: float | None = None
    event_hour: datetime | None = None
    value: str | None = None

    @property
    def null_rate(self) -> float:
        """``null_count / record_count``; 0 for an empty table."""
        return self.null_count / self.record_count if self.record_count else 0.0


def profile(df: DataFrame, columns: Sequence[str]) -> list[ColumnProfile]:
    """Profile ``columns`` of ``df`` in one aggregation over one scan.

    Values are counted in sets, one per column, because several ``count(DISTINCT ..)`` in one query multiply the rows by the
    number of columns. The sets hold the distinct values of the audited range: do not profile identifiers.

    Args:
        df: the rows.
        columns: names of scalar columns; strings and booleans get no numeric statistics.

    Returns:
        One profile per column, in the order given.
    """
    numeric = {field.name for field in df.schema.fields if isinstance(field.dataType, NumericType)}
    if not columns:
        return []
    statistics = [
        sf.struct(*(value.alias(key) for key, value in _statistics(sf.col(name), name in numeric).items())).alias(name)
        for name in columns
    ]
    (row,) = df.agg(sf.count(sf.lit(1)).alias("_rows"), *statistics).collect()
    return [_profile(name, row["_rows"], row[name].asDict()) for name in columns]


def category_counts(df: DataFrame, columns: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often each value of each categorical column occurs, by one grouping over all of them.

    Args:
        df: the rows.
        columns: string columns with a handful of values each; their combinations are what is grouped.

    Returns:
        Column -> value -> rows; null counts as ``"null"``.
    """
    counts: dict[str, dict[str, int]] = {name: {} for name in columns}
    for row in df.groupBy(*columns).agg(sf.count(sf.lit(1)).alias("_rows")).collect():
        for name in columns:
            value = "null" if row[name] is None else str(row[name])
            counts[name][value] = counts[name].get(value, 0) + row["_rows"]
    return counts


def _statistics(column: Column, is_numeric: bool) -> dict[str, Column]:
    common = {"present": sf.count(column), "distinct": sf.size(sf.collect_set(column))}
    if not is_numeric:
        return common
    return common | {
        "mean": sf.avg(column),
        "stddev": sf.stddev_samp(column),
        "min": sf.min(column).cast("double"),
        "max": sf.max(column).cast("double"),
        "percentiles": sf.percentile(column, list(_PERCENTILES)),
    }


def _profile(name: str, rows: int, figures: dict[str, Any]) -> ColumnProfile:
    p25, p50, p75, p95 = figures.get("percentiles") or [None] * len(_PERCENTILES)
    return ColumnProfile(
        column_name=name,
        record_count=rows,
        null_count=rows - figures["present"],
        distinct_count=figures["distinct"],
        mean_value=figures.get("mean"),
        stddev_value=figures.get("stddev"),
        min_value=figures.get("min"),
        max_value=figures.get("max"),
        p25=p25,
        p50=p50,
        p75=p75,
        p95=p95,
    )
