"""The marks by which rows that must not be published are told from the others, and what is done with either kind."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.instants import instant

DUPLICATE_EVENT_ID: Final = "duplicate_event_id"
REJECTED_PREFIX: Final = "rejected:"

REJECTED_BY: Final = "_rejected_by"
"""An optional column of upstream rows: id of the operator's decision that keeps the row from being published, or null."""

FAILED_RULES: Final = "failed_rules"
"""Comma-separated reasons why a row must not be published, null for a good row."""


@dataclass(frozen=True)
class Rejection:
    """An operator's decision that matching rows must not be published.

    Attributes:
        decision_id: id of the row in ``dq_audit.gate_decisions``.
        predicate: SQL condition on the cleaned row; null counts as no match.
    """

    decision_id: str
    predicate: str


def good(marked: DataFrame, spec: TableSpec) -> DataFrame:
    """The marked rows without a reason, exactly the columns of ``spec``."""
    return marked.where(sf.col(FAILED_RULES).isNull()).select(*spec.column_names)


def set_aside(marked: DataFrame, spec: TableSpec, **processed_at: datetime | Column) -> DataFrame:
    """The marked rows with a reason, exactly the columns of ``spec``.

    Args:
        processed_at: the column that says when they were set aside, and its value.
    """
    bad = marked.where(sf.col(FAILED_RULES).isNotNull())
    return bad.withColumns({name: instant(at) for name, at in processed_at.items()}).select(*spec.column_names)
