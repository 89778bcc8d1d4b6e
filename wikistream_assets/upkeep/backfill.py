"""Days computed anew: Silver held against Bronze, Gold recomputed from Silver.

Silver is not rewritten (docs/adr): it is append-only, and its position says which Bronze rows are in it. Instead its rows are
computed once more from the same Bronze rows and compared. Gold's days are overwritten through audit and publication.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import functions as sf

from wikistream_assets.engine import publication
from wikistream_assets.engine.context import GateReport, JobContext
from wikistream_assets.engine.gate import rows_by_hour
from wikistream_assets.exceptions import ConfigurationError, GateError
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.lake.state import consumed
from wikistream_assets.streams.declaration import Append, Hour, Recompute
from wikistream_assets.transforms.marks import DUPLICATE_EVENT_ID, FAILED_RULES

_ROW = ("event_id", "event_date", "event_timestamp")


def days(first: str, last: str) -> list[str]:
    """The dates from ``first`` to ``last``, both included, yyyy-MM-dd.

    Raises:
        ConfigurationError: one of them is no date, or the first lies behind the last.
    """
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        raise ConfigurationError(f"{first!r} to {last!r}: give two dates as yyyy-MM-dd") from None
    if begin > end:
        raise ConfigurationError(f"the first day, {first}, lies behind the last, {last}")
    return [(begin + timedelta(days=number)).isoformat() for number in range((end - begin).days + 1)]


def silver_differences(ctx: JobContext, dates: Sequence[str]) -> Counter[Hour]:
    """Rows of Silver that Bronze does not give, or Bronze gives and neither Silver nor the quarantine has, by date and hour.

    Columns of Silver are compared as they are, all but the time of processing, and the classes that criteria give: Silver keeps
    those of its time, Gold does not read them. Rows in the quarantine are counted by their ids: a decision may have put them
    there, or another row of the same id that came first.
    """
    [(appended, build)] = [(each, each.build) for each in ctx.stream.publications if isinstance(each.build, Append)]
    raw, (cleaned, aside) = appended.upstream, appended.tables
    newest = ctx.lake.state(cleaned).newest_position()
    source = consumed(newest, raw)
    if newest is None or source is None:
        return Counter()
    of_its_time = {column.name for column in cleaned.having("criteria")}
    of_the_run = {column.name for column in cleaned.having("incidental")} - set(raw.column_names)
    kept = [name for name in cleaned.column_names if name not in of_its_time | of_the_run]
    everything = read_table(ctx.spark, raw, source)  # this starts Spark, without which there are no columns
    on_dates = sf.col("event_date").isin(list(dates))
    rows = everything.where(on_dates)
    marked = build.split(
        rows,
        processed_at=datetime.now(UTC),
        criteria=ctx.criteria,
        rejections=(),
        existing_ids=None,
        copies=False,
    )
    given = marked.where(sf.coalesce(FAILED_RULES, sf.lit(DUPLICATE_EVENT_ID)) == DUPLICATE_EVENT_ID).select(*kept)
    silver = read_table(ctx.spark, cleaned, newest.snapshot_id).where(on_dates)
    quarantine = read_table(ctx.spark, aside).where(on_dates)
    there = silver.select(*_ROW).unionAll(quarantine.select(*_ROW))
    wrong, missing = silver.select(*kept).exceptAll(given), marked.select(*_ROW).exceptAll(there)
    return rows_by_hour(wrong.select(*_ROW).unionAll(missing))


def run(ctx: JobContext, dates: Sequence[str]) -> GateReport:
    """Hold Silver's days against Bronze, then compute Gold's anew.

    Raises:
        GateError: a day's names are masked, Silver does not follow from Bronze, or as ``publication.recompute``.
    """
    [recomputed] = [each for each in ctx.stream.publications if isinstance(each.build, Recompute)]
    masked_before = ctx.lake.state(recomputed.upstream).masked.before
    if min(dates) < masked_before:
        raise GateError(
            f"names before {masked_before} are masked: computed from what is left, Gold would say something else; "
            f"begin at {masked_before} or later"
        )
    differences = silver_differences(ctx, dates)
    if differences:
        hours = ", ".join(f"{day} {hour:02d}h: {rows}" for (day, hour), rows in sorted(differences.items())[:10])
        raise GateError(
            f"Silver does not follow from Bronze: {differences.total()} rows differ ({hours}); roll Silver back to before they "
            "came ('wikistream rollback') and run the cycle, nothing was recomputed"
        )
    return publication.recompute(ctx, recomputed, dates)
