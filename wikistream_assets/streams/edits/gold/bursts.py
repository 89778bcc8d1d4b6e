"""Bursts: articles that many people edit within an hour, measured against what the page and its wiki usually get.

An edit counts here if a person made it to an article: type ``edit`` or ``new``, namespace 0, no bot flag, a known user and title.
Noticeboards, deletion discussions and the like are busy by design, and many begin a new page every day.

What a page usually gets comes from its own date and the ``BASELINE_DAYS`` dates before it, never from later ones, so a date that
is recomputed later gives the same rows. docs/adr/0017-what-is-trending.md says how formula and constants were chosen.
"""

from collections.abc import Collection
from datetime import date, timedelta
from typing import Final

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

MIN_EDITS: Final = 5
MIN_EDITORS: Final = 4
"""What an hour needs to be a burst at all. Three people are an edit war as often as they are news."""

BASELINE_DAYS: Final = 7
"""Dates before a date that its baseline covers: every hour of the week once."""

MIN_BASELINE_HOURS: Final = 6
"""Hours in which a wiki must have been seen before a window. If there are fewer, the rest of the window's date counts too."""

UNKNOWN_PAGE_EDITS: Final = 1
"""Edits an hour that any page is expected to get, so that a page without history has a finite ratio."""

RISE_SMOOTHING: Final = 10
"""Edits added to both sides of a wiki's rise: a handful of edits on a small wiki is no rise."""

RATIO_DIGITS: Final = 9
"""Decimal places in which two ratios must differ to be told apart."""

_QUARTER_SECONDS: Final = 900
_WINDOW_QUARTERS: Final = 4
_DAY_QUARTERS: Final = 96
_PAGE: Final = ("domain", "title")
_PAGE_DAY: Final = ("stat_date", *_PAGE)
_BURST: Final = (
    "stat_date string, domain string, title string, burst_start timestamp, burst_edits long, burst_editors long,"
    " burst_expected double, trend_ratio double"
)


def bursts(silver: DataFrame, earlier: DataFrame | None) -> DataFrame:
    """Find each page's sharpest burst of each date. Windows are an hour long, start every 15 minutes and lie within one date.

    Args:
        silver: all rows of the dates to compute.
        earlier: all rows of the ``BASELINE_DAYS`` dates before each of them that are not in ``silver``; None if there are none.

    Returns:
        One row per ``stat_date, domain, title`` that has a window with ``MIN_EDITS`` edits by ``MIN_EDITORS`` people:
        ``burst_start``, ``burst_edits``, ``burst_editors``, ``burst_expected`` and ``trend_ratio`` of the window with the highest
        ratio, or of the earliest if several have it.
    """
    edits = _edits(silver)
    busy = _busy_windows(edits)
    # Asked for at once: in most cycles no hour of a page is busy, and the plan of all that follows costs more than the answer.
    windows = busy.collect()
    spark = silver.sparkSession
    if not windows:
        return spark.createDataFrame([], _BURST)
    busy = spark.createDataFrame(windows, busy.schema)
    known = edits.unionAll(_edits(earlier)) if earlier else edits
    wiki = known.groupBy("domain", "quarter").agg(sf.count(sf.lit(1)).alias("edits"))
    measured = (
        _with_baseline(busy, known, wiki)
        .join(_wiki_windows(wiki), ["domain", "start"])
        .withColumn("burst_expected", UNKNOWN_PAGE_EDITS + _usual() * _rise())
        .withColumn("trend_ratio", sf.col("burst_edits") / sf.col("burst_expected"))
    )
    sharpest = Window.partitionBy(*_PAGE_DAY).orderBy(sf.desc(sf.round("trend_ratio", RATIO_DIGITS)), "start")
    return (
        measured.withColumn("place", sf.row_number().over(sharpest))
        .where(sf.col("place") == 1)
        .withColumn("burst_start", sf.timestamp_seconds(sf.col("start") * _QUARTER_SECONDS))
        .select(*_PAGE_DAY, "burst_start", "burst_edits", "burst_editors", "burst_expected", "trend_ratio")
    )


def dates_before(dates: Collection[str]) -> set[str]:
    """The dates (yyyy-MM-dd) that the baselines of ``dates`` read, without ``dates``."""
    return {_shifted(day, -days) for day in dates for days in range(1, BASELINE_DAYS + 1)} - set(dates)


def dates_after(dates: Collection[str]) -> set[str]:
    """The dates whose baselines read one of ``dates``, without ``dates``."""
    return {_shifted(day, days) for day in dates for days in range(1, BASELINE_DAYS + 1)} - set(dates)


def _shifted(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def _edits(silver: DataFrame) -> DataFrame:
    """Edits of articles by people. ``quarter`` is the quarter of an hour, counted from 1970 in UTC."""
    article = sf.col("event_type").isin("edit", "new") & (sf.col("namespace") == 0) & sf.col("title").isNotNull()
    by_person = ~sf.col("is_bot") & sf.col("user_normalized").isNotNull()
    quarter = sf.floor(sf.unix_seconds("event_timestamp") / _QUARTER_SECONDS)
    return silver.where(article & by_person).select(
        sf.col("event_date").alias("stat_date"), *_PAGE, "user_normalized", quarter.alias("quarter")
    )


def _busy_windows(edits: DataFrame) -> DataFrame:
    """Windows with enough edits by enough people; ``start`` is their first quarter."""
    # Most pages have too few edits on the whole day. They go first: every edit of the others is counted in four windows.
    on_day = edits.withColumn("_on_day", sf.count(sf.lit(1)).over(Window.partitionBy(*_PAGE_DAY)))
    return (
        on_day.where(sf.col("_on_day") >= MIN_EDITS)
        .withColumn("start", sf.explode(_starts()))
        .groupBy(*_PAGE_DAY, "start")
        .agg(sf.count(sf.lit(1)).alias("burst_edits"), sf.count_distinct("user_normalized").alias("burst_editors"))
        .where((sf.col("burst_edits") >= MIN_EDITS) & (sf.col("burst_editors") >= MIN_EDITORS))
    )


def _wiki_windows(wiki: DataFrame) -> DataFrame:
    """Edits of each wiki in each window: ``wiki_in_window``."""
    windows = wiki.withColumn("start", sf.explode(_starts()))
    return windows.groupBy("domain", "start").agg(sf.sum("edits").alias("wiki_in_window"))


def _starts() -> Column:
    """The first quarters of the windows that ``quarter`` lies in."""
    midnight = sf.floor(sf.col("quarter") / _DAY_QUARTERS) * _DAY_QUARTERS
    return sf.sequence(
        sf.greatest(sf.col("quarter") - (_WINDOW_QUARTERS - 1), midnight),
        sf.least(sf.col("quarter"), midnight + (_DAY_QUARTERS - _WINDOW_QUARTERS)),
    )


def _with_baseline(busy: DataFrame, known: DataFrame, wiki: DataFrame) -> DataFrame:
    """The windows with sums over the hours in which their wiki was seen, on the window's date and the dates before it.

    ``before_*`` covers the hours before the window, ``around_*`` all hours but those of the window, ``first_*`` and ``last_*``
    the hours of earlier dates at the time of day when the window starts and ends. ``*_hours`` counts the hours, ``*_page`` and
    ``*_wiki`` are the edits of the page and the wiki in them.
    """
    wiki_hours = wiki.groupBy("domain", _hour("quarter").alias("hour")).agg(sf.sum("edits").alias("wiki_edits"))
    pages = known.join(sf.broadcast(busy.select(*_PAGE).distinct()), [*_PAGE], "left_semi")
    page_hours = pages.groupBy(*_PAGE, _hour("quarter").alias("hour")).agg(sf.count(sf.lit(1)).alias("page_edits"))

    hour, first, last = sf.col("hour"), _hour("start"), _hour("start", _WINDOW_QUARTERS - 1)
    midnight = sf.floor(first / 24) * 24
    kinds = {
        "before": hour < first,
        "around": ~hour.isin(first, last),
        "first": (hour < midnight) & (hour % 24 == first % 24),
        "last": (hour < midnight) & (hour % 24 == last % 24),
    }
    window = (*_PAGE_DAY, "start", "burst_edits", "burst_editors")
    return (
        busy.join(wiki_hours, "domain")
        .where(hour.between(midnight - 24 * BASELINE_DAYS, midnight + 23))
        .join(page_hours, [*_PAGE, "hour"], "left")
        .groupBy(*window)
        .agg(*(total for name, condition in kinds.items() for total in _totals(name, condition)))
    )


def _totals(name: str, condition: Column) -> tuple[Column, Column, Column]:
    nothing = sf.lit(0).cast("long")
    return (
        sf.count_if(condition).alias(f"{name}_hours"),
        sf.coalesce(sf.sum(sf.when(condition, sf.col("page_edits"))), nothing).alias(f"{name}_page"),
        sf.coalesce(sf.sum(sf.when(condition, sf.col("wiki_edits"))), nothing).alias(f"{name}_wiki"),
    )


def _baseline(figure: str) -> Column:
    known = sf.col("before_hours") >= MIN_BASELINE_HOURS
    return sf.when(known, sf.col(f"before_{figure}")).otherwise(sf.col(f"around_{figure}"))


def _usual() -> Column:
    """The page's edits in an hour: the baseline's mean, or that of the same time of day on earlier dates where it is higher.

    The second is what makes a page that gets its edits at the same time every day a usual one.
    """
    return sf.greatest(
        _mean(_baseline("page"), _baseline("hours")),
        _mean(sf.col("first_page"), sf.col("first_hours")),
        _mean(sf.col("last_page"), sf.col("last_hours")),
    )


def _rise() -> Column:
    """How much busier than usual the rest of the wiki is in the window; at least 1, so that a quiet night makes no burst."""
    mean = _mean(_baseline("wiki") - _baseline("page"), _baseline("hours"))
    in_window = sf.col("wiki_in_window") - sf.col("burst_edits")
    return sf.greatest(sf.lit(1.0), (in_window + RISE_SMOOTHING) / (mean + RISE_SMOOTHING))


def _mean(edits: Column, hours: Column) -> Column:
    return sf.when(hours > 0, edits / hours).otherwise(sf.lit(0.0))


def _hour(quarter: str, later: int = 0) -> Column:
    return sf.floor((sf.col(quarter) + later) / 4)
