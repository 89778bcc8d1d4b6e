"""Which rows of Bronze the operators' decisions reject: the Bronze gate passes them over, Silver sends them to quarantine.

A decision speaks of the rows of its own range only, and obeys its condition to the letter, with one exception: about a check that
looks for repeated rows it rejects what is too many. Of rows that are alike in the check's columns one stays, even if all of them
meet the condition: a batch that was written twice is told from itself by no column.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Final

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as sf

from wikistream_assets.engine import gate
from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.engine.decisions import Decision
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import read_range
from wikistream_assets.lake.state import TableState
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.kafka import place
from wikistream_assets.transforms.marks import REJECTED_BY

_BEFORE: Final = "_before"
_MEETS: Final = "_meets"


def read_marked(
    spark: SparkSession, lake: Lakehouse, raw: TableSpec, covered: SnapshotRange, decisions: Sequence[Decision]
) -> DataFrame:
    """The rows of ``raw`` of ``covered`` with the column ``REJECTED_BY``: the first decision that rejects the row, or null.

    Args:
        decisions: of ranges that lie within ``covered``, oldest first.

    Raises:
        GateError: a decision's condition is not of the grammar.
    """
    rejections = [decision for decision in decisions if decision.action == "reject"]
    edges = {edge for decision in rejections for edge in (decision.range.start, decision.range.end)}
    cuts = [number for number in _snapshots(lake.state(raw), covered) if number in edges and number != covered.end]
    parts = [SnapshotRange(*ends) for ends in pairwise([covered.start, *cuts, covered.end])]
    # Cut at all their ends, a part lies within a decision's range or outside of it.
    speak = {decision.decision_id: set(_snapshots(lake.state(raw), decision.range)) for decision in rejections}
    marked = [
        _marked(spark, lake, raw, part, [each for each in rejections if part.end in speak[each.decision_id]])
        for part in parts
    ]
    return reduce(DataFrame.unionByName, marked)


def _snapshots(raw: TableState, covered: SnapshotRange) -> list[int]:
    """The snapshots of a range, oldest first."""
    return [version.snapshot_id for version in raw.between(covered.start, covered.end)][::-1]


def _marked(
    spark: SparkSession, lake: Lakehouse, raw: TableSpec, part: SnapshotRange, rejections: Sequence[Decision]
) -> DataFrame:
    rows = read_range(spark, raw, part.start, part.end).withColumn(REJECTED_BY, sf.lit(None).cast("string"))
    for decision in rejections:
        # Of rows that an earlier decision has rejected nothing more is to be said.
        meets = sf.col(REJECTED_BY).isNull() & sf.coalesce(sf.expr(decision.condition), sf.lit(False))
        rows = rows.withColumn(_MEETS, meets)
        if decision.repeated_columns:
            rows = _but_one(spark, lake, raw, rows, part, decision.repeated_columns)
        rejected = sf.when(sf.col(_MEETS), sf.lit(decision.decision_id))
        rows = rows.withColumn(REJECTED_BY, sf.coalesce(REJECTED_BY, rejected)).drop(_MEETS)
    return rows


def _but_one(
    spark: SparkSession,
    lake: Lakehouse,
    raw: TableSpec,
    rows: DataFrame,
    part: SnapshotRange,
    columns: tuple[str, ...],
) -> DataFrame:
    """Let one of the rows that are alike in ``columns`` not meet the condition, unless there is another that does not.

    That may be a row from before the range, in the partitions where the check looks for it.
    """
    before = gate.rows_before(spark, lake, raw, part, gate.rows_by_hour(rows))
    every = rows.withColumn(_BEFORE, sf.lit(False))
    if before is not None:
        narrow = before.select(*columns).withColumns({_BEFORE: sf.lit(True), _MEETS: sf.lit(False)})
        every = every.unionByName(narrow, allowMissingColumns=True)
    alike = Window.partitionBy(*columns)
    stays = sf.col(REJECTED_BY).isNull() & ~sf.col(_MEETS)
    first_in_order = alike.orderBy(sf.desc(_MEETS), place(), "bronze_processed_at", "event_id", "payload")
    return (
        every.withColumn("_stay", sf.sum(stays.cast("int")).over(alike))
        .withColumn("_number", sf.row_number().over(first_in_order))
        .where(~sf.col(_BEFORE))
        .withColumn(_MEETS, sf.col(_MEETS) & ((sf.col("_stay") > 0) | (sf.col("_number") > 1)))
        .select(*rows.columns)
    )
