"""Bronze to Silver: each event cleaned and classified, and the rows that cannot be true told apart with their reasons."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Final

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria
from wikistream_assets.streams.edits import users, wikis
from wikistream_assets.streams.edits.classes import classes
from wikistream_assets.streams.edits.tables.silver import CLEANED_EVENTS
from wikistream_assets.transforms import text
from wikistream_assets.transforms.instants import instant
from wikistream_assets.transforms.kafka import place
from wikistream_assets.transforms.marks import (
    DUPLICATE_EVENT_ID,
    FAILED_RULES,
    REJECTED_BY,
    REJECTED_PREFIX,
    Rejection,
)

EVENT_TYPES: Final = ("edit", "new", "log", "categorize", "external")
OTHER_TYPE: Final = "other"
"""Numeric types (extensions' own kinds of change); the event schema allows "or a number"."""

_BRONZE_REASONS: Final = "_bronze_reasons"
_COPY: Final = "_copy"


@dataclass(frozen=True)
class RowRule:
    """A row-level rule: rows that break it are quarantined and never block.

    Attributes:
        name: what ``failed_rules`` shows.
        predicate: SQL over the cleaned row that a good row meets; null counts as broken.
        reason: why a row that breaks it cannot be true.
    """

    name: str
    predicate: str
    reason: str


ROW_RULES: Final = (
    RowRule(
        "missing_user", "user_normalized is not null", "every change has an author; without one it cannot be attributed"
    ),
    RowRule("missing_title", "title is not null or event_type not in ('edit', 'new')", "an edit changes some page"),
    RowRule(
        "unknown_event_type",
        f"event_type in ({', '.join(repr(name) for name in (*EVENT_TYPES, OTHER_TYPE))})",
        "the event schema knows five names and numbers, nothing else",
    ),
    RowRule(
        "negative_length",
        "coalesce(length_old, 0) >= 0 and coalesce(length_new, 0) >= 0",
        "a page has no negative size",
    ),
    RowRule(
        "before_wikipedia", "event_timestamp >= timestamp'2001-01-15 00:00:00Z'", "Wikipedia was opened on 2001-01-15"
    ),
)
"""Only what is impossible. Clean captures of four different years break none of these in any row."""


def clean(
    bronze: DataFrame, *kept: str, processed_at: datetime | Column, criteria: Criteria = DEFAULT_CRITERIA
) -> DataFrame:
    """Clean and classify Bronze rows; no row is dropped.

    Args:
        bronze: rows of ``bronze.raw_events``.
        kept: further columns of ``bronze`` that are passed on.
        processed_at: becomes ``silver_processed_at``.
        criteria: what is large, and what a region.

    Returns:
        One row per input row: the columns of ``silver.cleaned_events``, and ``kept``.
    """
    # Steps on columns of their own, because Spark computes an expression once per step but once per use within a step.
    is_bot = sf.coalesce(sf.col("is_bot"), sf.lit(False))
    # The stream leaves length.old out of new pages; without it a quarter of all added bytes would be lost.
    length_old = sf.when(sf.col("_type") == "new", sf.coalesce(sf.col("length_old"), sf.lit(0))).otherwise(
        sf.col("length_old")
    )
    length_delta = sf.col("length_new") - sf.col("_length_old")
    present = [sf.col(name).isNotNull() for name in ("event_id", "domain", "event_timestamp", "_user")]
    expressions = {
        "event_type": sf.col("_type"),
        "language": wikis.language(sf.col("domain")),
        "title": text.one_line(sf.col("title")),
        "user_normalized": sf.col("_user"),
        "user_kind": sf.col("_kind"),
        "is_bot": is_bot,
        "is_anonymous": sf.coalesce(sf.col("_kind").isin(*users.ANONYMOUS_KINDS), sf.lit(False)),
        "length_old": sf.col("_length_old"),
        "length_delta": length_delta,
        "is_valid": reduce(and_, present),
        **classes(sf.col("domain"), length_delta, criteria),
        "silver_processed_at": instant(processed_at),
    }
    steps = bronze.withColumns(
        {"_type": _event_type(sf.col("event_type")), "_user": users.normalized(sf.col("user"))}
    ).withColumns({"_length_old": length_old, "_kind": users.kind(sf.col("_user"), is_bot)})
    return steps.select(
        *(expressions.get(name, sf.col(name)).alias(name) for name in CLEANED_EVENTS.column_names), *kept
    )


def split(
    bronze: DataFrame,
    *,
    processed_at: datetime | Column,
    criteria: Criteria = DEFAULT_CRITERIA,
    rejections: Sequence[Rejection] = (),
    existing_ids: DataFrame | None = None,
    copies: bool = False,
) -> DataFrame:
    """Clean Bronze rows and say of each whether it may enter Silver.

    ``marks.good`` and ``marks.set_aside`` are the two filters of the result: together they hold each input row exactly once.

    Args:
        bronze: rows of ``bronze.raw_events``, with ``REJECTED_BY`` if some are rejected.
        processed_at: becomes ``silver_processed_at``.
        criteria: what is large, and what a region.
        rejections: of cleaned rows.
        existing_ids: column ``event_id`` of what Silver holds already on the dates of ``bronze``.
        copies: whether rows may have both event id and place in Kafka in common. Looking for them shuffles the wide rows.

    Returns:
        The columns of ``silver.cleaned_events`` and ``failed_rules``. Of several rows with one ``event_id`` the first in Kafka's
        order (partition, offset) that is not rejected is kept, and none if Silver already holds the id; the others fail
        ``duplicate_event_id``.
    """
    if REJECTED_BY not in bronze.columns:
        bronze = bronze.withColumn(REJECTED_BY, sf.lit(None).cast("string"))
    number = sf.lit(1)
    if copies:
        alike = Window.partitionBy("event_id", place())
        number = sf.row_number().over(alike.orderBy(sf.col(REJECTED_BY).isNotNull(), "bronze_processed_at", "payload"))
    bronze = bronze.withColumn(_COPY, number)
    first = _first_of_repeated(bronze, existing_ids)
    bronze_reasons = [
        sf.when((place() != sf.col("_first")) | (sf.col(_COPY) > 1), sf.lit(DUPLICATE_EVENT_ID)),
        sf.concat(sf.lit(REJECTED_PREFIX), sf.col(REJECTED_BY)),
    ]
    # Only the few repeated ids are joined, by broadcast: the wide rows are neither shuffled nor sorted.
    marked = bronze.join(sf.broadcast(first), "event_id", "left").withColumn(
        _BRONZE_REASONS, sf.concat_ws(",", *bronze_reasons)
    )
    cleaned = clean(marked, _BRONZE_REASONS, processed_at=processed_at, criteria=criteria)
    reasons = [
        *(sf.when(~sf.coalesce(sf.expr(rule.predicate), sf.lit(False)), sf.lit(rule.name)) for rule in ROW_RULES),
        _unless_empty(sf.col(_BRONZE_REASONS)),
        *(_reason(rejection) for rejection in rejections),
    ]
    return cleaned.withColumn(FAILED_RULES, _unless_empty(sf.concat_ws(",", *reasons))).drop(_BRONZE_REASONS)


def _unless_empty(text: Column) -> Column:
    return sf.when(text != "", text)


def _reason(rejection: Rejection) -> Column:
    return sf.when(sf.expr(rejection.predicate), sf.lit(REJECTED_PREFIX + rejection.decision_id))


def _first_of_repeated(bronze: DataFrame, existing_ids: DataFrame | None) -> DataFrame:
    """``event_id`` and ``_first``, the place of the row to keep, of each id that occurs more than once."""
    places = bronze.where(sf.col(REJECTED_BY).isNull()).select("event_id", place().alias("_place"))
    if existing_ids is not None:
        known = existing_ids.select("event_id").join(places.select("event_id"), "event_id", "left_semi")
        # No Kafka record has this place, and it comes before all: of an id that Silver holds no row is kept.
        places = places.unionAll(known.select("event_id", sf.lit(-1).cast("long")))
    first = places.groupBy("event_id").agg(sf.min("_place").alias("_first"), sf.count(sf.lit(1)).alias("_rows"))
    return first.where("_rows > 1").drop("_rows")


def _event_type(raw: Column) -> Column:
    """Numbers become ``other``; anything else is kept in lower case, and the rule ``unknown_event_type`` judges it."""
    name = sf.lower(sf.trim(raw))
    return sf.when(name.rlike(r"^-?[0-9]+(?:\.[0-9]+)?$"), sf.lit(OTHER_TYPE)).otherwise(name)
