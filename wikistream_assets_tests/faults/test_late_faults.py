"""Case 24: clocks that jump by an hour, an event a day late, one after its day was final. Kept, counted late, never dropped."""

import signal
from datetime import timedelta
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyspark.sql import SparkSession

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.context import GateReport
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import CATALOG_NAME, Lakehouse
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import HOURLY_STATS, RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, event_ids, streaming, totals
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.kafka_records import event_message, produce
from wikistream_assets_tests.lake.lakes import add, arrow, full_row, set_clock_back
from wikistream_assets_tests.producer.samples import ID, line
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.upkeep.test_backfill import files

pytestmark = [pytest.mark.faults, pytest.mark.spark]

UNTOUCHED, FINAL, TODAY = "2026-02-26", "2026-02-27", "2026-03-01"
_TIMES = ("event_timestamp", "kafka_timestamp", "producer_ingested_at", "bronze_processed_at")


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def moved(row: Row, name: str, by: timedelta, *, arrived: bool = False) -> Row:
    """The row as another event ``by`` later or earlier; with ``arrived`` it came when the row came, only its time is another."""
    times = {time: row[time] + by for time in (_TIMES[:1] if arrived else _TIMES)}
    happened = times["event_timestamp"]
    return {
        **row,
        **times,
        "event_id": name,
        "kafka_offset": 100_000 + int.from_bytes(name.encode()[-6:]),
        "event_date": happened.strftime("%Y-%m-%d"),
        "event_hour": happened.hour,
    }


def by_hour(gates: GateLake) -> dict[tuple[str, int], tuple[int, bool]]:
    rows = gates.rows(
        "select stat_date, stat_hour, sum(total_events)::bigint, bool_and(is_final) from gold.hourly_stats group by all"
    )
    return {(day, hour): (events, final) for day, hour, events, final in rows}


def passed(reports: list[GateReport]) -> bool:
    return all(report.passed for report in reports)


def test_24_late_events_and_clock_jumps(gates: GateLake, settings_factory: SettingsFactory, account: Account) -> None:
    rows = clean_rows(RAW_EVENTS)
    today, rest = rows[:700], rows[700:]
    days = (timedelta(days=-3), timedelta(days=-2))
    earlier = [moved(row, f"{row['event_id']}{by.days}", by) for by in days for row in rows[:600]]
    gates.add_bronze(earlier + today)
    assert passed(gates.cycle())
    before, untouched, final = (
        by_hour(gates),
        files(gates.lake, HOURLY_STATS, UNTOUCHED),
        files(gates.lake, HOURLY_STATS, FINAL),
    )
    assert {is_final for (day, _), (_, is_final) in before.items() if day != TODAY} == {True}

    newest = rest[-1]
    late: dict[str, tuple[Row, Any]] = {
        "after its day was final": (moved(newest, "late-final", timedelta(days=-2), arrived=True), FINAL),
        "a day late": (moved(newest, "late-day", timedelta(days=-1), arrived=True), "2026-02-28"),
        "clock an hour behind": (moved(newest, "clock-behind", timedelta(hours=-1), arrived=True), TODAY),
        "clock an hour ahead": (moved(newest, "clock-ahead", timedelta(hours=1), arrived=True), TODAY),
    }
    gates.add_bronze([row for row, _ in late.values()])  # the clock ahead moves the watermark before the rest has come
    reports = gates.cycle()
    assert passed(reports)
    (timeliness,) = (o for report in reports for o in report.outcomes if o.rule.name == "event_timeliness")
    assert timeliness.records_failed >= 3  # counted late; the one from the future is its own check's
    (ahead,) = (o for report in reports for o in report.outcomes if o.rule.name == "no_future_timestamps")
    assert ahead.records_failed == 1

    after = by_hour(gates)
    changed = {hour for hour in after if after[hour][0] != before.get(hour, (0, False))[0]}
    assert changed == {(row["event_date"], row["event_hour"]) for row, _ in late.values()}
    assert all(after[hour][1] for hour in after if hour[0] == FINAL)  # changed, and as final as it was
    assert files(gates.lake, HOURLY_STATS, UNTOUCHED) == untouched
    assert files(gates.lake, HOURLY_STATS, FINAL).isdisjoint(final)

    gates.add_bronze(rest)  # behind the watermark that the wrong clock has set: into hours that were called final
    assert passed(gates.cycle())
    everything = [*earlier, *today, *rest, *(row for row, _ in late.values())]
    sent = [row["event_id"] for row in everything]
    found = [row[0] for row in gates.rows("select event_id from silver.cleaned_events")]
    account.settle("24", "clock jump of an hour, events a day late and after is_final", sent=sent, found=found, tries=4)
    assert sum(events for events, _ in by_hour(gates).values()) == len(sent)
    in_order = GateLake(settings_factory())
    in_order.add_bronze(sorted(everything, key=lambda row: row["event_timestamp"]))
    assert passed(in_order.cycle())
    assert table_hashes(gates.lake) == table_hashes(in_order.lake)


@pytest.mark.kafka
def test_24_the_clock_is_set_back_under_the_running_stream(
    settings_factory: SettingsFactory, fresh_topics: Broker, account: Account
) -> None:
    """It waits until the clock has passed its newest commit, in the same process, and goes on with the batch that was refused."""
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    open_home(settings)
    lake, ids = local_lake(settings), [f"id-{number:05d}" for number in range(1_000)]
    messages = [event_message(i, line().replace(ID, i)) for i in ids]
    produce(settings.bootstrap_servers, messages[:500])
    with streaming(settings) as stream:
        wait_until(lambda: len(event_ids(lake)) == 500, 300)
        set_clock_back(lake, RAW_EVENTS, 150)  # so that it is refused for a minute and a half
        produce(settings.bootstrap_servers, messages[500:])
        wait_until(lambda: "waiting: the clock" in stream.log, 90)
        assert len(event_ids(lake)) == 500
        wait_until(lambda: totals(lake)["records"] == len(ids), 300)
        stream.signal(signal.SIGTERM)
        assert stream.exit_code() == 0, stream.log
    assert stream.log.count("waiting: the clock") == 1, stream.log
    assert_sound(lake)
    account.settle("24", "the clock set back under the stream", sent=ids, found=event_ids(lake))


def test_24_control_a_catalog_that_commits_at_any_time(spark: SparkSession, lake: Lakehouse, account: Account) -> None:
    """PyIceberg's own: after a commit at an earlier time than the last one, Spark can read nothing of the table."""
    ids = ["before", "after"]
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id=ids[0]))
    set_clock_back(lake, RAW_EVENTS, 3_600)
    properties = {"uri": lake.catalog.properties["uri"], "warehouse": lake.catalog.properties["warehouse"]}
    table = SqlCatalog(CATALOG_NAME, **properties).load_table(RAW_EVENTS.identifier)
    table.append(arrow(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id=ids[1])))
    try:
        found = [row["event_id"] for row in read_table(spark, RAW_EVENTS).collect()]
    except Exception:
        found = []
    account.settle("24", "the clock set back; commits at any time", sent=ids, found=found, control=True)


def test_24_control_a_watermark_that_drops(account: Account) -> None:
    """The usual way: what lies further behind the newest event than the allowed lateness is left out."""
    rows = clean_rows(RAW_EVENTS)
    newest, kept = rows[0]["event_timestamp"], []
    stream = [
        *rows[:700],
        moved(rows[-1], "clock-ahead", timedelta(hours=1)),
        *rows[700:],
        moved(rows[-1], "late", timedelta(days=-1)),
    ]
    for row in stream:
        newest = max(newest, row["event_timestamp"])
        if row["event_timestamp"] >= newest - timedelta(hours=2):
            kept.append(row["event_id"])
    account.settle(
        "24", "a watermark that drops what is late", sent=[row["event_id"] for row in stream], found=kept, control=True
    )
