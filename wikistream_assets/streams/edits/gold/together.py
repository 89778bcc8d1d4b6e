"""Gold's four tables, computed together from Silver's rows of some days."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import Criteria
from wikistream_assets.streams.edits.classes import classes
from wikistream_assets.streams.edits.gold import daily_analytics_summary, entity_trends, hourly_stats, risk_scores
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.tables.gold import (
    DAILY_ANALYTICS_SUMMARY,
    ENTITY_TRENDS,
    HOURLY_STATS,
    RISK_SCORES,
)
from wikistream_assets.tables.spec import TableSpec


@contextmanager
def computed(
    rows: DataFrame,
    earlier: DataFrame,
    /,
    *,
    watermark: datetime,
    allowed_lateness_hours: int,
    processed_at: datetime,
    criteria: Criteria,
    user_key: bytes,
) -> Iterator[Mapping[TableSpec, DataFrame]]:
    """The four tables; the frames that they share are persisted until the context ends. As ``declaration.Compute``."""
    # Classed once more: Silver's rows keep the classes of their time, and a row of Gold must not mix two sets of criteria.
    classed = rows.withColumns(classes(sf.col("domain"), sf.col("length_delta"), criteria))
    timing: dict[str, Any] = {
        "watermark": watermark,
        "allowed_lateness_hours": allowed_lateness_hours,
        "processed_at": processed_at,
        "criteria": criteria,
    }
    hourly = activity(classed, earlier)
    shared = [frame.persist() for frame in (hourly.users, hourly.pages, hourly.entities)]
    try:
        scores = risk_scores.compute(hourly, **timing, user_key=user_key).persist()
        shared.append(scores)
        yield {
            HOURLY_STATS: hourly_stats.compute(hourly, **timing),
            RISK_SCORES: scores,
            ENTITY_TRENDS: entity_trends.compute(hourly, **timing, user_key=user_key),
            DAILY_ANALYTICS_SUMMARY: daily_analytics_summary.compute(hourly, scores, **timing),
        }
    finally:
        for frame in shared:
            frame.unpersist()
