"""Trends across days: what is usual on a date comes from the dates before it, so late events there change it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from wikistream_assets.engine import publication
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import GOLD
from wikistream_assets.streams.edits.tables import ENTITY_TRENDS, GOLD_TABLES, HOURLY_STATS
from wikistream_assets_tests import oracle
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row
from wikistream_assets_tests.lake.lakes import add, forget_contracts, full_row
from wikistream_assets_tests.quality.samples import with_bronze_lineage

pytestmark = pytest.mark.spark

FIRST, NEWS, NEXT_WEEK, AFTER_IT, OPEN = (datetime(2026, 3, day, 12, tzinfo=UTC) for day in (3, 5, 10, 11, 12))
"""The baseline of ``NEXT_WEEK`` still reads ``FIRST``, that of ``AFTER_IT`` does not; ``OPEN`` is not over yet."""


def _bronze(moments: list[datetime], first_offset: int = 0) -> list[Row]:
    """Twelve edits of one page by six people at each moment."""

    def events() -> Iterator[str]:
        for moment in moments:
            for number in range(12):
                at = moment + number * timedelta(minutes=1)
                event = {
                    "$schema": "/mediawiki/recentchange/1.0.0",
                    "meta": {"id": f"{at:%d-%H-%M}", "domain": "en.wikipedia.org", "dt": at.isoformat()},
                    "id": int(at.timestamp()),
                    "type": "edit",
                    "namespace": 0,
                    "title": "Tea",
                    "timestamp": int(at.timestamp()),
                    "user": f"User {number % 6}",
                    "bot": False,
                    "comment": "",
                    "server_name": "en.wikipedia.org",
                    "wiki": "enwiki",
                    "length": {"old": 2000, "new": 2010},
                    "revision": {"old": 1, "new": 2},
                }
                yield json.dumps(event)

    rows = with_bronze_lineage(oracle.bronze_rows(events(), None))
    return [{**row, "kafka_offset": row["kafka_offset"] + first_offset} for row in rows]


def test_late_events_are_usual_on_the_days_after_them(lake: Lakehouse, settings: Settings) -> None:
    gates = GateLake(settings)
    trending = "select stat_date, entity_id from gold.entity_trends where trend_rank is not null order by all"
    processed = "select distinct stat_date, gold_processed_at from gold.entity_trends order by all"
    silver: list[Row] = []

    def add_and_run(moments: list[datetime]) -> None:
        rows = _bronze(moments, first_offset=len(silver))
        gates.add_bronze(rows)
        assert all(report.passed for report in gates.cycle())
        silver.extend(oracle.silver_rows(rows))
        expected = oracle.Gold(silver, gates.ctx.user_key, settings.allowed_lateness_hours)
        for spec in GOLD_TABLES:
            rows = lake.table(spec).scan().to_arrow().to_pylist()
            oracle.assert_same_rows(rows, getattr(expected, spec.name)(), spec.key)

    add_and_run([NEWS, NEXT_WEEK, AFTER_IT, OPEN])
    assert gates.rows(trending) == [("2026-03-05", "en.wikipedia.org:Tea")]  # later, at this time of day, it is no news
    first_run = dict(gates.rows(processed))

    add_and_run([FIRST])
    assert gates.rows(trending) == [("2026-03-03", "en.wikipedia.org:Tea")]
    again = {day for day, at in gates.rows(processed) if first_run.get(day) != at}
    assert again == {"2026-03-03", "2026-03-05", "2026-03-10", "2026-03-12"}

    hashes = table_hashes(lake)
    assert publication.recompute(gates.ctx, GOLD, ["2026-03-05", "2026-03-10"]).passed
    assert lake.state(ENTITY_TRENDS).newest_position().position["recomputed"] == "test"
    assert table_hashes(lake) == hashes


def test_a_home_of_version_1_goes_on_and_its_rows_stay_until_they_are_recomputed(
    lake: Lakehouse, settings: Settings
) -> None:
    gained = {
        HOURLY_STATS: ("language",),
        ENTITY_TRENDS: ("trend_rank", "burst_start", "burst_edits", "burst_editors", "burst_expected"),
    }
    for spec, columns in gained.items():
        with lake.table(spec).update_schema() as update:
            for column in columns:
                update.delete_column(column)
        known = {name: value for name, value in full_row(spec, schema_version="1").items() if name not in columns}
        add(lake, spec, {**known, spec.partition_by[0]: "2026-02-01"})
    forget_contracts(lake)

    gates = GateLake(settings)  # as the next start does
    gates.add_bronze(_bronze([NEWS]))
    assert all(report.passed for report in gates.cycle())
    assert gates.rows("select stat_date, language, schema_version from gold.hourly_stats order by 1") == [
        ("2026-02-01", None, "1"),
        ("2026-03-05", "en", "2"),
    ]
    assert gates.rows(
        "select stat_date, trend_rank, burst_edits, trend_ratio from gold.entity_trends"
        " where trend_ratio is not null order by 1"
    ) == [("2026-02-01", None, None, 0.1), ("2026-03-05", 1, 12, 12.0)]
