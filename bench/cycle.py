"""One cycle with all gates against the same transforms without any, and against DuckDB; and the same on a long history.

Three sides work on the same 50,000 new events in each round, in turn:

* ``cycle``: Bronze gate, Silver with its gate, Gold with its gate, as in production;
* ``plain``: the same Spark transforms, plain appends, no gate, branch or audit;
* ``duckdb``: a SQL script that computes the same tables from the same Bronze files into Parquet.

``cycle`` is measured on a lake that began empty and on one with a history of 2,000,000 rows. The JVM's start is not counted; one
unmeasured round warms it up. ``python -m bench.cycle [--quick]``.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from producer.contract import Accepted, Contract
from producer.envelope import Envelope
from producer.eventstreams.generator import Generator
from producer.wikis import FOLLOWED_DOMAINS, REGION_BY_DOMAIN
from wikistream_assets.engine import bronze_gate, publication
from wikistream_assets.engine.context import JobContext
from wikistream_assets.environment.local import LocalEnvironment
from wikistream_assets.lake.lakehouse import Lakehouse, matching
from wikistream_assets.lake.spark_io import append_rows, read_range, table_name
from wikistream_assets.lake.state import summary_properties
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.cleaned_events import split
from wikistream_assets.streams.edits.gold import daily_analytics_summary, entity_trends, hourly_stats, risk_scores
from wikistream_assets.streams.edits.gold.activity import activity
from wikistream_assets.streams.edits.gold.bursts import dates_before
from wikistream_assets.streams.edits.raw_events import parse, stamp
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.marks import good

NEW_EVENTS: Final = 50_000
HISTORY_EVENTS: Final = 2_000_000
PLAIN_RATIO_ALLOWED: Final = 3.0
GROWTH_ALLOWED: Final = 1.3

_FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class _Lake:
    """A lake and the day that its next batch falls on."""

    ctx: JobContext
    day: int = 0

    @property
    def lake(self) -> Lakehouse:
        return self.ctx.lake

    def add_day(self, template: DataFrame) -> tuple[int, int]:
        """Append the template's events, moved to the next day under new ids; returns Bronze's snapshots before and after."""
        before = self.lake.state(RAW_EVENTS).newest_position()
        total = before.counts["total"]["rows"] if before and before.counts else 0
        shift = sf.expr(f"interval {self.day} days")
        rows = template.withColumns(
            {
                "event_id": sf.concat(sf.col("event_id"), sf.lit(f"-{self.day}")),
                "kafka_offset": sf.col("kafka_offset") + total,
                "event_timestamp": sf.col("event_timestamp") + shift,
                "event_date": sf.date_format(sf.col("event_timestamp") + shift, "yyyy-MM-dd"),
            }
        ).select(*RAW_EVENTS.column_names)
        number = template.count()
        counts = {"records": total + number, "rows": total + number, "dead_letters": 0, "duplicates": 0}
        properties = summary_properties({"raw-events": {"0": total + number}, "dlq-events": {}}, {"total": counts})
        start = self.lake.state(RAW_EVENTS).head()
        append_rows(rows, RAW_EVENTS, properties)
        end = self.lake.state(RAW_EVENTS).head()
        self.day += 1
        assert start is not None
        assert end is not None
        return start.snapshot_id, end.snapshot_id

    def newest_files(self) -> list[str]:
        """Bronze's data files of the newest day."""
        newest = (_FIRST_DAY + timedelta(days=self.day - 1)).date().isoformat()
        tasks = self.lake.table(RAW_EVENTS).scan(row_filter=matching(event_date=newest)).plan_files()
        return [task.file.file_path.removeprefix("file://") for task in tasks]

    def cycle(self) -> None:
        for report in (bronze_gate.run(self.ctx), *(publication.run(self.ctx, each) for each in EDITS.publications)):
            if not (report.passed and report.advanced):
                raise AssertionError(f"{report.layer}: {[outcome.rule.name for outcome in report.blocking]}")


def run(rounds: int = 5, new_events: int = NEW_EVENTS, history_events: int = HISTORY_EVENTS) -> dict[str, Any]:
    """Measure all sides in turn; print a table.

    Returns:
        Median seconds of each side and the two ratios.
    """
    with tempfile.TemporaryDirectory(prefix="wikistream-bench-") as folder:
        root = Path(folder)
        fresh, grown = _new_lake(root / "fresh"), _new_lake(root / "grown")
        templates = {id(lake): _template(lake.ctx.spark, root, new_events) for lake in (fresh, grown)}
        print(f"building a history of {history_events} rows", flush=True)
        for _ in range(history_events // new_events):
            grown.add_day(templates[id(grown)])
        grown.cycle()
        plain = _Plain(fresh.ctx.spark)
        seconds: dict[str, list[float]] = {"cycle": [], "plain": [], "duckdb": [], "cycle on history": []}
        for number in range(rounds + 1):
            start, end = fresh.add_day(templates[id(fresh)])
            grown.add_day(templates[id(grown)])
            bronze = read_range(fresh.ctx.spark, RAW_EVENTS, start, end)
            files = fresh.newest_files()
            measured = {
                "cycle": _timed(fresh.cycle),
                "plain": _timed(partial(plain.run, bronze)),
                "duckdb": _timed(partial(_duckdb, files, root)),
                "cycle on history": _timed(grown.cycle),
            }
            shown = "  ".join(f"{side} {spent:6.2f} s" for side, spent in measured.items())
            print(f"round {number}{' (warm-up)' if number == 0 else '          '}  {shown}", flush=True)
            if number:
                for side, spent in measured.items():
                    seconds[side].append(spent)
    return _summary(rounds, new_events, history_events, {s: statistics.median(v) for s, v in seconds.items()})


def _summary(rounds: int, new_events: int, history_events: int, medians: dict[str, float]) -> dict[str, Any]:
    summary = {
        "bench": "cycle",
        "rounds": rounds,
        "new_events": new_events,
        "history_events": history_events,
        **{f"{side.replace(' ', '_')}_seconds": round(spent, 2) for side, spent in medians.items()},
        "cycle_to_plain": round(medians["cycle"] / medians["plain"], 2),
        "cycle_to_plain_allowed": PLAIN_RATIO_ALLOWED,
        "cycle_to_duckdb": round(medians["cycle"] / medians["duckdb"], 1),
        "growth": round(medians["cycle on history"] / medians["cycle"], 2),
        "growth_allowed": GROWTH_ALLOWED,
    }
    print(
        f"\ncycle / plain {summary['cycle_to_plain']} (at most {PLAIN_RATIO_ALLOWED})"
        f"   cycle / DuckDB {summary['cycle_to_duckdb']}   on history / fresh {summary['growth']} (at most {GROWTH_ALLOWED})"
    )
    return summary


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _new_lake(home: Path) -> _Lake:
    settings = Settings(home=home)
    environment = LocalEnvironment(settings)
    environment.lake()  # makes the tables, which the plain side's are made after
    environment.spark(lasting=True)
    return _Lake(JobContext(environment, "bench", EDITS))


def _template(spark: SparkSession, root: Path, events: int) -> DataFrame:
    """One day's Bronze rows, made by the real parser from generated events of the followed wikis."""
    path = root / "records.parquet"
    if not path.exists():
        _write_records(path, events)
    rows = stamp(parse(spark.read.parquet(str(path))), datetime.now(UTC)).where("reason is null")
    made = root / f"template-{id(spark)}.parquet"
    rows.select(*RAW_EVENTS.column_names).write.parquet(str(made))
    return spark.read.parquet(str(made))


def _write_records(path: Path, events: int) -> None:
    wrap, contract = Envelope("local", "bench", "synthetic"), Contract(FOLLOWED_DOMAINS, 1_000_000)
    made = Generator(events=events + events // 20, start=_FIRST_DAY, hours=23.5, followed_share=1.0, redelivered=0.0)
    values = []
    for line in made.lines():
        if isinstance(verdict := contract.judge(line.data), Accepted):
            values.append(wrap.event_value(verdict.event_id, line.data.decode()))
    values = values[:events]
    now = datetime.now(UTC)
    records = {
        "value": pa.array(values, pa.binary()),
        "topic": pa.array(["raw-events"] * len(values)),
        "partition": pa.array([0] * len(values), pa.int32()),
        "offset": pa.array(range(len(values)), pa.int64()),
        "timestamp": pa.array([now] * len(values), pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(records), path)


class _Plain:
    """The same transforms with plain appends, into tables of their own."""

    _ARGUMENTS: Final[dict[str, Any]] = {
        "watermark": _FIRST_DAY,
        "allowed_lateness_hours": 2,
        "processed_at": _FIRST_DAY,
    }

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        spark.sql("create namespace if not exists wikistream.plain")
        for spec in (CLEANED_EVENTS, *GOLD_TABLES):
            self._create(spec)

    def _create(self, spec: TableSpec) -> None:
        template = self._spark.table(table_name(spec)).limit(0)
        partitions = [sf.col(name) for name in spec.partition_by]
        template.writeTo(f"wikistream.plain.{spec.name}").using("iceberg").partitionedBy(*partitions).tableProperty(
            "write.distribution-mode", "none"
        ).tableProperty("write.spark.fanout.enabled", "true").tableProperty(
            "write.parquet.compression-codec", "zstd"
        ).create()

    def run(self, bronze: DataFrame) -> None:
        good(split(bronze, processed_at=_FIRST_DAY), CLEANED_EVENTS).writeTo("wikistream.plain.cleaned_events").append()
        dates = [row["event_date"] for row in bronze.select("event_date").distinct().collect()]
        silver, event_date = self._spark.table("wikistream.plain.cleaned_events"), sf.col("event_date")
        hourly = activity(
            silver.where(event_date.isin(dates)), silver.where(event_date.isin(sorted(dates_before(dates))))
        )
        shared = [frame.persist() for frame in (hourly.users, hourly.pages, hourly.entities)]
        scores = risk_scores.compute(hourly, **self._ARGUMENTS, user_key=b"bench").persist()
        tables = {
            "hourly_stats": hourly_stats.compute(hourly, **self._ARGUMENTS),
            "risk_scores": scores,
            "entity_trends": entity_trends.compute(hourly, **self._ARGUMENTS, user_key=b"bench"),
            "daily_analytics_summary": daily_analytics_summary.compute(hourly, scores, **self._ARGUMENTS),
        }
        for name, frame in tables.items():
            frame.writeTo(f"wikistream.plain.{name}").append()
        for frame in (scores, *shared):
            frame.unpersist()


_SILVER_SQL: Final = """
create or replace temp table silver as select event_id,
  case when event_type ~ '^[0-9]+$' then 'other' else event_type end event_type,
  domain, coalesce(region, 'other') region, trim(regexp_replace(title, '[\\x00-\\x1f]', '', 'g')) title, namespace,
  trim(regexp_replace("user", '[\\x00-\\x1f]', '', 'g')) u, is_bot,
  case when is_bot then 'bot' when "user" ~ '^([0-9]{1,3}\\.){3}[0-9]{1,3}$' then 'ip4'
    when "user" ~ '^[0-9A-Fa-f:]+:[0-9A-Fa-f:]+$'
    then 'ip6' when "user" ~ '^~[0-9-]+$' then 'temporary' else 'registered' end user_kind,
  length_new - case when event_type = 'new' then coalesce(length_old, 0) else length_old end delta, event_timestamp, event_date,
  event_hour, revision_old, revision_new
from (select *, row_number() over (partition by event_id order by kafka_partition, kafka_offset) n from read_parquet($files))
  left join regions using (domain) where n = 1
"""

_GOLD_SQL: Final = (
    """create or replace temp table hourly as select event_date, event_hour, domain, any_value(region) region, count(*) events,
  count(distinct u) users, count(distinct title) pages, sum(greatest(delta, 0)) added, -sum(least(delta, 0)) removed,
  avg(abs(delta)) average, count_if(is_bot) bots, count_if(user_kind in ('ip4', 'ip6', 'temporary')) anonymous,
  count_if(event_type = 'edit') edits, count_if(event_type = 'new') news, count_if(event_type = 'categorize') categorized,
  count_if(event_type = 'log') logs, count_if(delta < -5000) deletions, count_if(delta > 50000) additions
from silver group by all""",
    """create or replace temp table risks as with days as (select event_date, u, count(*) edits,
  count(*) / count(distinct event_hour) speed, count_if(delta < -5000) deletions,
  avg((user_kind in ('ip4', 'ip6', 'temporary'))::int) anonymous,
  count(distinct domain) domains from silver group by all having count(*) >= 5 and not bool_or(is_bot))
select *, 40 * (speed > 50)::int + 30 * (deletions > 3)::int + 20 * (anonymous > 0.5)::int
  + 10 * (domains > 5 and speed > 50)::int score from days""",
    """create or replace temp table trends as with entities as (
    select event_date, event_hour, 'page' kind, domain || ':' || title entity from silver
    union all select event_date, event_hour, 'user', u from silver
    union all select event_date, event_hour, 'domain', domain from silver),
  hours as (select event_date, kind, entity, event_hour, count(*) edits from entities group by all),
  bursts as (
    select event_date, entity, max(edits) burst from (
      select event_date, domain || ':' || title entity, epoch(event_timestamp)::bigint // 900 - hop start, count(*) edits
      from silver, range(4) hops(hop)
      where event_type in ('edit', 'new') and namespace = 0 and not is_bot
      group by all having count(*) >= 5 and count(distinct u) >= 4)
    group by all)
select event_date, kind, entity, sum(edits) edits, sum(edits) / count(*) per_hour, any_value(burst) burst
from hours left join bursts using (event_date, entity) group by event_date, kind, entity
qualify row_number() over (partition by event_date, kind order by sum(edits) desc, entity) <= 100""",
    """create or replace temp table daily as select event_date, count(*) events, count(distinct u) users,
  count(distinct domain) domains,
  count(distinct (domain, title)) pages, avg(is_bot::int) bots,
  sum(greatest(delta, 0)) added, -sum(least(delta, 0)) removed,
  count_if(event_type = 'new') news, count_if(delta < -5000) deletions, avg((region = 'europe')::int) europe,
  (select avg(score) from risks r where r.event_date = s.event_date) score from silver s group by event_date""",
)


def _duckdb(files: list[str], root: Path) -> None:
    """The same tables by one SQL script, written as Parquet."""
    with duckdb.connect() as connection:
        connection.execute("set threads = 2; set timezone = 'UTC'")
        connection.execute("create temp table regions (domain varchar, region varchar)")
        connection.executemany("insert into regions values (?, ?)", [list(pair) for pair in REGION_BY_DOMAIN.items()])
        connection.execute(_SILVER_SQL, {"files": files})
        for statement in _GOLD_SQL:
            connection.execute(statement)
        for name in ("silver", "hourly", "risks", "trends", "daily"):
            connection.execute(f"copy {name} to '{root / name}.parquet' (compression zstd)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cycle", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds on a short history, to see that it works")
    quick = parser.parse_args().quick
    run(*((1, 5_000, 20_000) if quick else ()))


if __name__ == "__main__":
    main()
