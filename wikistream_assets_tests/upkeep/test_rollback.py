"""Comparing and setting back: a bad publication is undone with whatever follows from it, and the next cycle is right."""

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from producer.eventstreams.generator import Generator
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine import append, bronze_gate, publication
from wikistream_assets.engine.bronze_gate import AUDITING_TAG
from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.engine.gate_control import decide_on_failure, gate_states
from wikistream_assets.engine.ingest import drain
from wikistream_assets.exceptions import GateError, LakeError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.diff import CHANGED, difference, version_named
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.quality.rule import Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.gold import entity_trends
from wikistream_assets.streams.edits.stream import GOLD
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DEAD_LETTER,
    GOLD_TABLES,
    HOURLY_STATS,
    QUARANTINE,
    RAW_EVENTS,
)
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep import rollback
from wikistream_assets.upkeep.rollback import roll_back
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.gate_lakes import GateLake, blocking
from wikistream_assets_tests.kafka_records import judged, produce
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = pytest.mark.spark


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def _back(gates: GateLake, spec: object, snapshot_id: int, *, dry_run: bool = False) -> list[str]:
    done = roll_back(gates.ctx, spec, snapshot_id, reason="wrong", decided_by="someone", dry_run=dry_run)
    return [table.identifier for table in done.moved]


def test_a_bad_publication_is_undone_and_the_next_cycle_is_right(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, lake = clean_rows(RAW_EVENTS), gates.lake
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    good, mains = table_hashes(lake), gates.mains(CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)
    gates.add_bronze(rows[600:])
    assert gates.bronze_gate().passed
    with monkeypatch.context() as bug:
        right = append.good
        bug.setattr(
            append, "good", lambda marked, spec: right(marked, spec).replace({"edit": "log"}, subset=["event_type"])
        )
        assert gates.silver().passed  # no rule sees it
        assert gates.gold().passed
    bad = table_hashes(lake)
    found = difference(
        lake, CLEANED_EVENTS, mains[CLEANED_EVENTS.identifier], gates.mains()[CLEANED_EVENTS.identifier], 5
    )
    assert (found.added, found.removed, found.changed, len(found.examples)) == (300, 0, 0, 5)

    tables = [*(spec.identifier for spec in GOLD_TABLES), CLEANED_EVENTS.identifier, QUARANTINE.identifier]
    assert _back(gates, CLEANED_EVENTS, mains[CLEANED_EVENTS.identifier], dry_run=True) == tables
    assert table_hashes(lake) == bad
    assert _back(gates, CLEANED_EVENTS, mains[CLEANED_EVENTS.identifier]) == tables
    assert gates.mains(CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES) == mains
    assert {name: digest for name, digest in table_hashes(lake).items() if name in tables} == {
        n: good[n] for n in tables
    }
    assert sorted(gates.rows("select distinct action, reason, decided_by from dq_audit.gate_decisions")) == [
        ("rollback", "wrong", "someone")
    ]

    assert all(report.passed for report in gates.cycle())
    wrong = version_named(lake, HOURLY_STATS, str(_left(gates, HOURLY_STATS.identifier)))
    mended = difference(lake, HOURLY_STATS, wrong.snapshot_id, gates.mains()[HOURLY_STATS.identifier], 1000)
    assert (mended.added, mended.removed) == (0, 0)
    assert {(e.change, *e.columns) for e in mended.examples} == {(CHANGED, "type_edit", "type_log")}
    expected = gates.rows("select count(*) filter (event_type = 'edit') from bronze.raw_events")
    assert gates.rows("select count(*) filter (event_type = 'edit') from silver.cleaned_events") == expected
    assert gates.rows("select sum(type_edit) from gold.hourly_stats") == expected


def _left(gates: GateLake, table: str) -> int:
    [(head,)] = gates.rows(f"select range_end from dq_audit.gate_decisions where table_name = '{table}'")
    return int(head)


@pytest.mark.long
def test_gold_goes_back_as_one_and_is_made_again(gates: GateLake) -> None:
    rows = clean_rows(RAW_EVENTS)
    for part in (rows[:500], rows[500:]):
        gates.add_bronze(part)
        assert all(report.passed for report in gates.cycle())
    after, head = table_hashes(gates.lake), next(gates.lake.state(HOURLY_STATS).history())
    assert head.parent_id is not None
    assert _back(gates, HOURLY_STATS, head.parent_id) == [spec.identifier for spec in GOLD_TABLES]
    assert table_hashes(gates.lake) != after
    assert gates.gold().advanced
    assert table_hashes(gates.lake) == after


def _spoil(monkeypatch: pytest.MonkeyPatch, column: str, value: str, where: str) -> None:
    """A bug of the transform: where the condition holds, Silver's column has the value."""
    right = append.good

    def wrong(marked: DataFrame, spec: TableSpec) -> DataFrame:
        spoiled = sf.when(sf.expr(where), sf.expr(value)).otherwise(sf.col(column))
        return right(marked, spec).withColumn(column, spoiled.cast(marked.schema[column].dataType))

    monkeypatch.setattr(append, "good", wrong)


class _Killed(BaseException):
    """Stands for SIGKILL; the real signal is sent in the fault tests."""


@pytest.mark.parametrize(
    "killed", [pytest.param(False, id="done"), pytest.param(True, id="killed", marks=pytest.mark.long)]
)
def test_what_gold_did_not_let_through_goes_with_the_silver_it_was_made_from(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    rows, lake = clean_rows(RAW_EVENTS), gates.lake
    gates.add_bronze(rows[:500])
    assert all(report.passed for report in gates.cycle())
    good = gates.mains(CLEANED_EVENTS, QUARANTINE)
    gates.add_bronze(rows[500:700])
    assert gates.bronze_gate().passed
    with monkeypatch.context() as bug:
        _spoil(bug, "event_type", "'log'", "event_type = 'edit'")  # no rule of Silver sees it
        assert gates.silver().passed
        compute = entity_trends.compute
        bug.setattr(
            entity_trends,
            "compute",
            lambda *args, **named: compute(*args, **named).withColumn("rank", sf.col("rank") + 200),
        )
        assert not gates.gold().passed
    wrong = gates.mains(CLEANED_EVENTS)[CLEANED_EVENTS.identifier]
    assert publication.pending_range(lake.look(), GOLD).end == wrong

    if killed:
        seen: list[str] = []

        def kill(_: Settings, name: str) -> None:
            seen.append(name)
            if (
                seen.count(rollback.ROLLBACK_AFTER_TABLE) == 2
            ):  # Silver and the quarantine are back, Gold's branches stand
                raise _Killed

        with monkeypatch.context() as fault:
            fault.setattr(rollback, "failpoint", kill)
            with pytest.raises(_Killed):
                _back(gates, CLEANED_EVENTS, good[CLEANED_EVENTS.identifier])
        assert lake.state(HOURLY_STATS).waiting
        assert publication.recompute(gates.ctx, GOLD, ["2026-03-01"]).passed, "no failed range is in the way"
    else:
        tables = [CLEANED_EVENTS.identifier, QUARANTINE.identifier]
        assert _back(gates, CLEANED_EVENTS, good[CLEANED_EVENTS.identifier]) == tables
        assert not any(lake.state(spec).audit_branches for spec in (CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES))
    assert gates.mains(CLEANED_EVENTS, QUARANTINE) == good
    assert publication.pending_range(lake.look(), GOLD).empty

    gates.add_bronze(rows[700:])
    reports = gates.cycle()
    assert all(report.passed and report.advanced for report in reports)
    assert reports[2].range == SnapshotRange(good[CLEANED_EVENTS.identifier], gates.mains()[CLEANED_EVENTS.identifier])
    # what was set back was one range of Bronze, and is that again; what has come since is the next
    assert [report.advanced for report in gates.cycle()] == [False, True, True]
    edits = sum(row["event_type"] == "edit" for row in rows)
    assert gates.rows("select sum(total_events), sum(type_edit) from gold.hourly_stats") == [(900, edits)]


def test_a_waiver_does_not_cover_the_longer_range_after_a_rollback(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, lake = clean_rows(RAW_EVENTS), gates.lake
    gates.add_bronze(rows[:300])
    assert all(report.passed for report in gates.cycle())
    earliest = gates.mains(CLEANED_EVENTS)[CLEANED_EVENTS.identifier]
    gates.add_bronze(rows[300:600])
    assert gates.bronze_gate().passed
    assert gates.silver().passed
    gates.add_bronze(rows[600:])
    assert gates.bronze_gate().passed
    _spoil(monkeypatch, "language", "null", "event_id like '%000000000700'")
    short = gates.silver()
    assert blocking(short) == {"language_not_null": Status.FAILED}
    accept = ("accept", CLEANED_EVENTS.identifier, "language_not_null")
    decide_on_failure(gates.ctx, *accept, reason="one row", decided_by="ada")

    _back(gates, CLEANED_EVENTS, earliest)
    state = gate_states(lake)[1]
    assert (state.pending.end, state.blocked) == (short.range.end, False), "this range has not been audited yet"
    with pytest.raises(GateError, match="does not block anything now"):
        decide_on_failure(gates.ctx, *accept, reason="one row", decided_by="ada")
    long = gates.silver()
    assert long.range.end == short.range.end
    assert long.range.start != short.range.start
    assert blocking(long) == {"language_not_null": Status.FAILED}
    assert gate_states(lake)[1].blocked
    decide_on_failure(gates.ctx, *accept, reason="one row", decided_by="ada")
    assert gates.silver().passed
    assert gates.rows("select count(*) from silver.cleaned_events") == [(900,)]


def test_a_failed_bronze_range_stays_when_only_newer_rows_go_back(
    gates: GateLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback, "_require_in_kafka", lambda *_: None)  # these rows have never been there
    rows, lake = clean_rows(RAW_EVENTS), gates.lake
    gates.add_bronze(rows[:100])
    assert gates.bronze_gate().passed
    passed = gates.mains(RAW_EVENTS)[RAW_EVENTS.identifier]
    rows[150]["event_type"] = "flow!"
    gates.add_bronze(rows[100:200])
    failed = gates.bronze_gate()
    assert blocking(failed) == {"event_type_valid": Status.FAILED}
    gates.add_bronze(rows[200:300])
    _back(gates, RAW_EVENTS, failed.range.end)
    gates.add_bronze(rows[300:])
    assert bronze_gate.pending_range(lake.look(), RAW_EVENTS) == failed.range
    _back(gates, RAW_EVENTS, passed)
    assert lake.state(RAW_EVENTS).head(AUDITING_TAG) is None
    assert bronze_gate.pending_range(lake.look(), RAW_EVENTS).empty


def test_what_would_lose_rows_is_refused(gates: GateLake) -> None:
    gates.add_bronze(clean_rows(RAW_EVENTS))
    assert gates.bronze_gate().passed
    before = gates.mains()
    _, first = gates.lake.state(RAW_EVENTS).history()
    with pytest.raises(LakeError, match="cannot go back behind its tag 'audited'"):
        _back(gates, RAW_EVENTS, first.snapshot_id)
    with pytest.raises(LakeError, match=r"goes with silver\.cleaned_events"):
        _back(gates, QUARANTINE, before[QUARANTINE.identifier])
    with pytest.raises(LakeError, match="never taken back"):
        _back(gates, DEAD_LETTER, before[DEAD_LETTER.identifier])
    with pytest.raises(LakeError, match="made from nothing"):
        _back(gates, CLEANED_EVENTS, before[CLEANED_EVENTS.identifier])
    with pytest.raises(LakeError, match="no ancestor of main"):
        _back(gates, CLEANED_EVENTS, 4711)
    assert gates.mains() == before


@pytest.mark.long
@pytest.mark.kafka
def test_bronze_reads_again_what_was_set_back(fresh_topics: Broker, settings_factory: SettingsFactory) -> None:
    from wikistream_assets.embedded.home import open_home

    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    open_home(settings)
    lake = local_lake(settings)
    messages = list(judged(line.data for line in Generator(seed=5, events=400, malformed=0.02).lines()))
    heads = []
    for part in (messages[:100], messages[100:]):
        produce(settings.bootstrap_servers, part)
        drain(job_in(settings))
        heads.append(lake.state(RAW_EVENTS).newest_position())
    first, second = heads
    hashes = table_hashes(lake)
    roll_back(job_in(settings), RAW_EVENTS, first.snapshot_id, reason="a bug in parsing", decided_by="someone")
    assert lake.state(RAW_EVENTS).newest_position() == first
    drain(job_in(settings))
    again = lake.state(RAW_EVENTS).newest_position()
    assert (again.position, again.counts["total"]) == (second.position, second.counts["total"])
    assert table_hashes(lake) == hashes
