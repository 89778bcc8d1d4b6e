"""First ranges that bring a layer nothing: empty, tiny, or all of it bad. What follows must go on as if they had not been.

The control is a Gold that hands Spark its list of dates whatever is in it: it never gets past such a range.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import functions as sf

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine import publication
from wikistream_assets.engine.gate import Attempt
from wikistream_assets.engine.gate_control import decide_on_failure, gate_states
from wikistream_assets.engine.recompute import Recomputing
from wikistream_assets.lake.query import query
from wikistream_assets.lake.spark_io import overwrite_rows, read_table
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import GOLD
from wikistream_assets.streams.edits.tables import GOLD_TABLES, RAW_EVENTS
from wikistream_assets_tests import oracle
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row, blocking
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = [pytest.mark.faults, pytest.mark.spark]

READABLE = "select event_id from silver.cleaned_events"


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def _only_dead_letters(gates: GateLake, _: list[Row]) -> list[Row]:
    gates.add_bronze([], records=3, dead_letters=3)
    return []


def _only_duplicates(gates: GateLake, _: list[Row]) -> list[Row]:
    gates.add_bronze([], records=5, duplicates=5)
    return []


def _one_row(gates: GateLake, rows: list[Row]) -> list[Row]:
    gates.add_bronze(rows[:1])
    return []


def _all_quarantined(gates: GateLake, rows: list[Row]) -> list[Row]:
    bad = [row | {"length_old": -5, "event_id": f"bad-{row['event_id']}"} for row in rows[:40]]
    gates.add_bronze(_elsewhere(bad))
    return bad


def _all_rejected(gates: GateLake, rows: list[Row]) -> list[Row]:
    bad = [row | {"event_type": "flow!", "event_id": f"bad-{row['event_id']}"} for row in rows[:40]]
    gates.add_bronze(_elsewhere(bad))
    assert set(blocking(gates.bronze_gate())) == {"event_type_valid"}
    decide_on_failure(
        gates.ctx,
        "reject",
        "bronze.raw_events",
        "event_type_valid",
        reason="a test",
        decided_by="ada",
        predicate="true",
    )
    return bad


def _elsewhere(rows: list[Row]) -> list[Row]:
    return [row | {"kafka_offset": row["kafka_offset"] + 10_000} for row in rows]


FIRST = pytest.mark.parametrize(
    "first",
    [_only_dead_letters, _only_duplicates, _one_row, _all_quarantined, _all_rejected],
    ids=lambda function: function.__name__.strip("_"),
)
First = Callable[[GateLake, list[Row]], list[Row]]


@FIRST
def test_more_a_first_range_that_brings_nothing(gates: GateLake, account: Account, first: First) -> None:
    rows = clean_rows(RAW_EVENTS)
    bad = first(gates, rows)
    assert all(report.passed and report.advanced for report in gates.cycle())
    assert not any(state.blocked for state in gate_states(gates.lake))
    assert all(not report.advanced for report in gates.cycle())
    assert publication.recompute(gates.ctx, GOLD, [rows[0]["event_date"]]).passed
    tiny = first is _one_row
    gates.add_bronze(rows[1:] if tiny else rows)
    assert all(report.passed and report.advanced for report in gates.cycle())
    found = [row[0] for row in gates.rows(READABLE)]
    account.settle(
        "more",
        f"a first range of {first.__name__.strip('_').replace('_', ' ')}",
        sent=[row["event_id"] for row in rows],
        found=found,
    )
    aside = [row[0] for row in gates.rows("select event_id from quarantine.cleaned_events order by 1")]
    assert aside == sorted(row["event_id"] for row in bad)
    expected = len(oracle.silver_rows(rows))
    for table in ("hourly_stats", "daily_analytics_summary"):
        assert gates.rows(f"select sum(total_events)::bigint from gold.{table}") == [(expected,)]


def test_more_control_gold_that_overwrites_no_date_never_gets_past_it(
    gates: GateLake, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clean_rows(RAW_EVENTS)
    build = Recomputing.build

    def careless(self: Recomputing, attempt: Attempt) -> None:
        build(self, attempt)
        for spec in () if self._dates else GOLD_TABLES:
            nothing = read_table(self._ctx.spark, spec).limit(0)
            overwrite_rows(nothing, spec, sf.col(spec.partition_by[0]).isin(self._dates), {}, attempt.branch)

    monkeypatch.setattr(Recomputing, "build", careless)
    _only_dead_letters(gates, rows)
    for batch in (rows, []):
        assert gates.bronze_gate().passed
        assert gates.silver().passed
        with pytest.raises(Exception, match="INTERNAL_ERROR"):
            gates.gold()
        gates.add_bronze(batch)
    account.settle(
        "more",
        "a first range of dead letters; a Gold that overwrites an empty list of dates",
        sent=[row["event_id"] for row in rows],
        found=[row[0] for row in gates.rows("select stat_hour from gold.hourly_stats")],
        control=True,
    )


def test_more_a_batch_written_twice_and_rejected(gates: GateLake, account: Account) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    for _ in range(2):
        gates.add_bronze(rows[600:])
    sent = [row["event_id"] for row in rows]
    account.settle(
        "more",
        "a batch appended twice; a reader of Bronze that no gate holds back",
        sent=sent,
        found=[row[0] for row in gates.rows("select event_id from bronze.raw_events")],
        control=True,
    )
    assert set(blocking(gates.bronze_gate())) == {"kafka_position_unique", "event_id_unique"}
    decide_on_failure(
        gates.ctx,
        "reject",
        "bronze.raw_events",
        "kafka_position_unique",
        reason="a batch written twice",
        decided_by="ada",
        predicate="kafka_offset >= 200",
    )
    assert all(report.passed and report.advanced for report in gates.cycle())
    account.settle(
        "more", "a batch appended twice, one copy rejected", sent=sent, found=[row[0] for row in gates.rows(READABLE)]
    )
    assert gates.rows("select sum(total_events)::bigint from gold.hourly_stats") == [(900,)]


@pytest.mark.kafka
def test_more_the_demo_on_one_broken_line_and_then_on_events(
    settings_factory: SettingsFactory, tmp_path: Path, account: Account
) -> None:
    """As a stranger does it: the commands that look at such a lake work, and the next demo of the same home goes on."""
    settings = settings_factory(domains="*")
    broken, good = tmp_path / "broken.jsonl", tmp_path / "good.jsonl"
    broken.write_text("{\n")
    events = [json.loads(row["payload"]) for row in clean_rows(RAW_EVENTS)[:60]]
    good.write_text("".join(json.dumps(event) + "\n" for event in events))
    for command, code in (
        (("demo", "--source", str(broken)), 0),
        (("tables", "--hash"), 0),
        (("sql", "select * from gold.hourly_stats"), 0),
        (("gate", "status"), 0),
        (("maintain", "--dry-run"), 0),
        (("demo", "--source", str(good)), 0),
        (("tables", "--hash"), 0),
    ):
        ended = wikistream(*command, settings=settings)
        assert ended.returncode == code, (command, ended.stdout[-2000:], ended.stderr[-2000:])
    lake = local_lake(settings)
    history = [version.snapshot_id for version in lake.state(GOLD_TABLES[0]).history()]
    compared = wikistream("diff", "gold.hourly_stats", str(history[-1]), str(history[0]), settings=settings)
    assert compared.returncode == 0, compared.stderr
    account.settle(
        "more",
        "the demo on one broken line, then on events",
        sent=[event["meta"]["id"] for event in events],
        found=[row[0] for row in query(lake, READABLE).rows],
    )
