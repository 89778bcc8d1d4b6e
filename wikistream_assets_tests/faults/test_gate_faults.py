"""Gates, Silver and Gold killed at named points and at random, and started again, gates that cannot measure, two cycles at once:
fault cases 20, 21 and 22.

Each case ends with the hashes of an undisturbed run, and has a control: the same fault against a weaker way of working, seen to
fail.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from py4j.protocol import Py4JNetworkError
from pydeequ.analyzers import AnalysisRunBuilder

from producer.eventstreams.generator import Generator
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.components.events import asset_key
from wikistream_assets.definitions import defs
from wikistream_assets.embedded.dagster_home import prepare_dagster_home
from wikistream_assets.engine import append, bronze_gate, failpoints, recompute
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.instance.cycles import CYCLE
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.spark_io import append_rows, read_table
from wikistream_assets.lake.state import AUDITED_TAG
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.quality.deequ import evaluate
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.cleaned_events import split
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DAILY_ANALYTICS_SUMMARY,
    GOLD_TABLES,
    HOURLY_STATS,
    QUARANTINE,
    RAW_EVENTS,
)
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.marks import good
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, wait_until
from wikistream_assets_tests.engine.bronze_lakes import event_ids
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.faults.conftest import Account, cycled_hashes
from wikistream_assets_tests.kafka_records import judged, produce
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.rest_catalog import rest_catalog
from wikistream_assets_tests.streams.edits.frames import PROCESSED_AT
from wikistream_assets_tests.upkeep.test_backfill import DAY

pytestmark = [pytest.mark.faults, pytest.mark.spark]

GATE = Step(EDITS.name, Action.GATE, "killed")
SILVER = Step(EDITS.name, Action.PUBLISH, "killed", {"layer": "silver"})
GOLD = Step(EDITS.name, Action.PUBLISH, "killed", {"layer": "gold"})
RECOMPUTE = Step(EDITS.name, Action.RECOMPUTE, "killed", {"dates": [DAY]})
CYCLE_STEPS = (GATE, SILVER, GOLD)

READABLE = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


@pytest.fixture
def undisturbed(settings_factory: SettingsFactory) -> dict[str, str]:
    """Hashes of the tables that the same events give when nothing happens."""
    gates = GateLake(settings_factory())
    rows = clean_rows(RAW_EVENTS)
    for part in (rows[:600], rows[600:]):
        gates.add_bronze(part)
        assert all(report.passed for report in gates.cycle())
    return table_hashes(gates.lake)


def _start(gates: GateLake) -> None:
    """Publish a first part, and have a second one waiting in Bronze."""
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    gates.add_bronze(rows[600:])


def _settle(
    gates: GateLake,
    account: Account,
    number: str,
    fault: str,
    tries: int = 1,
    kills: int | None = None,
    control: bool = False,
) -> None:
    """Bronze's events against those of Silver and its quarantine; each try is a kill unless ``kills`` says otherwise."""
    sent, found = ([row[0] for row in gates.rows(sql)] for sql in ("select event_id from bronze.raw_events", READABLE))
    account.settle(
        number, fault, sent=sent, found=found, tries=tries, kills=tries if kills is None else kills, control=control
    )


def _begin(gates: GateLake, *steps: Step, through: str | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start steps as a separate process, as a job on EMR Serverless does; ``through`` is the address of a REST catalog."""
    program = ["wikistream_assets_tests.rest_catalog", through] if through else ["wikistream_assets.engine.step"]
    return subprocess.Popen(
        [sys.executable, "-m", *program, *(step.as_json() for step in steps)],
        env={**os.environ, **child_environment(gates.ctx.settings), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _jvms(process: subprocess.Popen[str]) -> bool:
    """Whether the process has started its JVM."""
    with suppress(psutil.NoSuchProcess):
        return any(child.name() == "java" for child in psutil.Process(process.pid).children(recursive=True))
    return False


def _kill(gates: GateLake, step: Step, failpoint: str, through: str | None = None) -> None:
    with _begin(gates, step, through=through, WIKISTREAM_FAILPOINT=failpoint) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors[-2000:]


def test_20_silver_killed_at_each_boundary_ends_the_same(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    _start(gates)
    gates.bronze_gate()
    before = gates.lake.state(CLEANED_EVENTS).head()
    for point in (
        failpoints.AFTER_BRANCHES,
        failpoints.AFTER_RESULTS,
        failpoints.AMID_PUBLICATION,
    ):
        _kill(gates, SILVER, failpoints.of_layer("silver", point))
        assert gates.lake.state(CLEANED_EVENTS).head() == before, "nothing is readable before the whole publication"
    _kill(gates, SILVER, failpoints.of_layer("silver", failpoints.AFTER_PUBLISH))
    assert not gates.silver().advanced, "published, though the run could not tell"
    assert gates.gold().passed
    _settle(gates, account, "20", "Silver kill -9 at each of its boundaries", tries=4)
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        ("20", "Silver kill -9 after its commit; no branch, no position"),
        ("more", "two cycles at once; no lock, no position"),
    ],
    ids=["killed", "two"],
)
def test_20_control_without_branch_lock_and_position_rows_are_doubled(
    gates: GateLake, undisturbed: dict[str, str], account: Account, number: str, fault: str
) -> None:
    _start(gates)
    gates.bronze_gate()
    new = read_table(gates.ctx.spark, RAW_EVENTS).where("cast(right(event_id, 12) as int) >= 600")
    for _ in range(2):  # started again after its commit, or beside another: nothing says how far the first run came
        append_rows(good(split(new, processed_at=PROCESSED_AT), CLEANED_EVENTS), CLEANED_EVENTS, {})
    _settle(gates, account, number, fault, control=True)
    assert table_hashes(gates.lake)["silver.cleaned_events"] != undisturbed["silver.cleaned_events"]


FIGURES = (
    "select (select sum(total_events) from gold.hourly_stats),"
    " (select sum(total_events) from gold.daily_analytics_summary)"
)


def _events_in(gates: GateLake, spec: TableSpec) -> int:
    """What a reader sees who reads the table as it is."""
    return sum(gates.lake.table(spec).scan().to_arrow()["total_events"].to_pylist())


def test_21_gold_killed_at_each_boundary_ends_the_same(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    gates.bronze_gate()
    gates.silver()
    _kill(gates, GOLD, failpoints.of_layer("gold", failpoints.AFTER_PUBLISH))
    assert not gates.gold().advanced, "published, though the run could not tell"
    gates.add_bronze(rows[600:])
    gates.bronze_gate()
    gates.silver()
    for point in (failpoints.AFTER_BRANCHES, failpoints.AFTER_RESULTS, failpoints.AMID_PUBLICATION):
        _kill(gates, GOLD, failpoints.of_layer("gold", point))
        seen = [_events_in(gates, spec) for spec in (HOURLY_STATS, DAILY_ANALYTICS_SUMMARY)]
        assert seen == [600, 600], "a reader of the tables as they are sees one version"
    assert gates.gold().passed
    assert gates.rows(FIGURES) == [(900, 900)]
    _settle(gates, account, "21", "Gold kill -9 at each of its boundaries", tries=4)
    assert table_hashes(gates.lake) == undisturbed


def test_20_and_21_where_the_catalog_moves_one_table_at_a_time(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    """The first table is published, the process is gone; the next run brings the others to it."""
    _start(gates)
    gates.bronze_gate()
    amid = failpoints.AMID_PUBLICATION
    with rest_catalog(gates.ctx.settings) as uri:
        _kill(gates, SILVER, failpoints.of_layer("silver", amid), through=uri)
        quarantine = gates.lake.state(QUARANTINE)
        assert quarantine.audit_branches, "the quarantine waits"
        with _begin(gates, SILVER, GATE, through=uri) as process:
            _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
        assert gates.lake.state(QUARANTINE).position == gates.lake.state(CLEANED_EVENTS).position
        _kill(gates, GOLD, failpoints.of_layer("gold", amid), through=uri)
        assert gates.rows(FIGURES) == [(600, 600)], "readers through WikiStream see one version, the older one"
        hourly, daily = (_events_in(gates, spec) for spec in (HOURLY_STATS, DAILY_ANALYTICS_SUMMARY))
        account.settle(
            "21",
            "Gold kill -9 between two of its tables, where the catalog moves one at a time; a reader of the tables as they are",
            sent=map(str, range(hourly)),
            found=map(str, range(daily)),
            control=True,
        )
        with _begin(gates, GOLD, through=uri) as process:
            _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    assert gates.rows(FIGURES) == [(900, 900)]
    _settle(gates, account, "20-21", "Silver and Gold kill -9 between two tables, through a REST catalog", tries=2)
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.short
def test_22_a_killed_bronze_gate_fails_closed(gates: GateLake, undisturbed: dict[str, str], account: Account) -> None:
    _start(gates)
    tag = gates.lake.state(RAW_EVENTS).head(AUDITED_TAG)
    _kill(gates, GATE, failpoints.GATE_AFTER_RESULTS)
    assert gates.lake.state(RAW_EVENTS).head(AUDITED_TAG) == tag
    assert not gates.silver().advanced, "what the gate has not tagged is not there for Silver"
    account.settle(
        "22",
        "Bronze gate kill -9 before its verdict is published; a reader of the newest snapshot reads what nobody audited",
        sent=[row["event_id"] for row in clean_rows(RAW_EVENTS)[:600]],
        found=event_ids(gates.lake),
        control=True,
    )
    assert all(report.passed for report in gates.cycle())
    doubled = "select check_id from dq_audit.quality_results group by 1 having count(*) > 1"
    assert gates.rows(doubled) == []
    _settle(gates, account, "22", "Bronze gate kill -9 before its verdict is published")
    assert table_hashes(gates.lake) == undisturbed


def test_22_a_bronze_gate_killed_between_its_two_tags_goes_on(
    gates: GateLake, undisturbed: dict[str, str], account: Account
) -> None:
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    gates.add_bronze(rows[600:700])
    newest = gates.lake.state(RAW_EVENTS).head()
    _kill(gates, GATE, failpoints.GATE_AFTER_PUBLISH)
    assert gates.lake.state(RAW_EVENTS).head(AUDITED_TAG) == newest
    gates.add_bronze(rows[700:])
    assert all(report.advanced for report in gates.cycle())
    _settle(gates, account, "22", "Bronze gate kill -9 after its verdict is published")
    assert table_hashes(gates.lake) == undisturbed


SENT = Generator(events=4_000)
"""Lines of the cases in which Deequ breaks: the first half is published before."""


@dataclass(frozen=True)
class RealCycle:
    """A home whose ``cycle`` runs as Dagster's job, in this process, on what the producer would have made of ``SENT``."""

    gates: GateLake
    instance: dg.DagsterInstance

    def send(self, first: int, end: int) -> None:
        """Let these lines arrive in Kafka."""
        lines = (line.data for line in islice(SENT.lines(), first, end))
        produce(self.gates.ctx.settings.bootstrap_servers, judged(lines, FOLLOWED_DOMAINS))

    def run(self) -> dg.ExecuteInProcessResult:
        job = defs().resolve_job_def(CYCLE)
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def ids(self) -> list[str]:
        """What a reader of Silver and its quarantine finds."""
        return [row[0] for row in self.gates.rows(READABLE)]


@pytest.fixture
def real_cycle(
    settings_factory: SettingsFactory, fresh_topics: Broker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealCycle]:
    """The first half is published, the second one is in Kafka."""
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    with dagster_instance(settings) as instance:
        cycle = RealCycle(GateLake(settings), instance)
        cycle.send(0, SENT.events // 2)
        assert cycle.run().success
        cycle.send(SENT.events // 2, SENT.events)
        yield cycle


@contextmanager
def _deequ_breaks_amid(column: str) -> Iterator[None]:
    """Once it has scanned rows with this column, which only the layer under audit has, every scan ends in an error."""
    scan, begun = AnalysisRunBuilder.run, False

    def run(builder: AnalysisRunBuilder) -> object:
        nonlocal begun
        if begun:
            raise Py4JNetworkError("Answer from Java side is empty")
        begun = column in builder._df.columns
        return scan(builder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnalysisRunBuilder, "run", run)
        yield
    assert begun, "no such rows were audited"


AMID = pytest.mark.parametrize(
    ("spec", "column"), [(RAW_EVENTS, "payload"), (CLEANED_EVENTS, "user_kind")], ids=["bronze", "silver"]
)


@pytest.mark.kafka
@AMID
def test_22_deequ_breaks_amid_a_gate(
    real_cycle: RealCycle, settings_factory: SettingsFactory, account: Account, spec: TableSpec, column: str
) -> None:
    gates, downstream = real_cycle.gates, (CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)
    tag, mains = gates.lake.state(RAW_EVENTS).head(AUDITED_TAG), gates.mains(*downstream)
    with _deequ_breaks_amid(column):
        broken = real_cycle.run()
    assert not broken.success
    materialized = {event.asset_key for event in broken.filter_events(lambda event: event.is_step_materialization)}
    assert not materialized & {asset_key(table) for table in downstream}
    assert gates.mains(*downstream) == mains
    assert (gates.lake.state(RAW_EVENTS).head(AUDITED_TAG) == tag) is (spec is RAW_EVENTS)
    recorded = f"from dq_audit.quality_results where run_id = '{broken.run_id}'"
    assert gates.rows(f"select distinct table_name, message {recorded} and status = 'ERROR'") == [
        (spec.identifier, "the check could not be carried out: Answer from Java side is empty")
    ]
    assert real_cycle.run().success
    ids: set[str] = set()
    SENT.manifest(ledger=ids)
    account.settle("22", f"Deequ breaks amid the audit of {spec.identifier}", sent=ids, found=real_cycle.ids())
    expected = cycled_hashes(settings_factory(bootstrap_servers=gates.ctx.settings.bootstrap_servers))
    assert table_hashes(gates.lake) == expected


@pytest.mark.kafka
@AMID
def test_22_control_a_gate_that_swallows_the_error_publishes(
    real_cycle: RealCycle, monkeypatch: pytest.MonkeyPatch, account: Account, spec: TableSpec, column: str
) -> None:
    def swallowing(*arguments: Any, **named: Any) -> list[CheckOutcome]:
        outcomes = evaluate(*arguments, **named)
        return [replace(it, status=Status.PASSED) if it.status is Status.ERROR else it for it in outcomes]

    for module in (bronze_gate, append, recompute):
        monkeypatch.setattr(module, "evaluate", swallowing)
    audited = real_cycle.ids()
    with _deequ_breaks_amid(column):
        assert real_cycle.run().success
    fault = f"Deequ breaks amid the audit of {spec.identifier}; a gate that swallows the error publishes what it has not audited"
    account.settle("22", fault, sent=audited, found=real_cycle.ids(), control=True)


@pytest.mark.parametrize("layer", ["silver", "gold"])
def test_20_and_21_published_and_dagster_does_not_know_it(
    gates: GateLake, undisturbed: dict[str, str], account: Account, layer: str
) -> None:
    """Killed after the publication as a run of Dagster; the next run has nothing to publish, and tells what it finds."""
    _start(gates)
    gates.bronze_gate()
    if layer == "gold":
        gates.silver()
    tables = (CLEANED_EVENTS, QUARANTINE) if layer == "silver" else GOLD_TABLES
    point = failpoints.of_layer(layer, failpoints.AFTER_PUBLISH)
    settings = gates.ctx.settings
    assert _dagster_run(settings, layer, WIKISTREAM_FAILPOINT=point) == -signal.SIGKILL
    heads = {spec.identifier: gates.lake.state(spec).head() for spec in tables}
    with dagster_instance(settings) as instance:
        (record,) = instance.get_run_records()
        told = [instance.get_latest_materialization_event(asset_key(spec)) for spec in tables]
        assert told == [None] * len(tables)
        instance.report_run_failed(record.dagster_run)  # as the daemon does, which this test has none of
        instance.event_log_storage.free_concurrency_slots_for_run(record.dagster_run.run_id)
        assert _dagster_run(settings, layer) == 0
        for spec in tables:
            head = heads[spec.identifier]
            entry = instance.get_latest_materialization_event(asset_key(spec))
            assert head is not None
            assert entry is not None
            assert entry.asset_materialization is not None
            assert entry.asset_materialization.metadata["snapshot"].value == str(head.snapshot_id)
            for rule in spec.rules:
                key = dg.AssetCheckKey(asset_key(spec), rule.name)
                check = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
                assert check.status is AssetCheckExecutionRecordStatus.SUCCEEDED, rule.name
    assert {spec.identifier: gates.lake.state(spec).head() for spec in tables} == heads, "nothing is published twice"
    assert all(report.passed for report in gates.cycle())
    number = "20" if layer == "silver" else "21"
    _settle(gates, account, number, f"{layer} kill -9 as a run of Dagster, published and not recorded")
    assert table_hashes(gates.lake) == undisturbed


def _dagster_run(settings: Settings, job: str, **environment: str) -> int:
    home = {"DAGSTER_HOME": str(prepare_dagster_home(settings))}
    return subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", "wikistream_assets.definitions", "-j", job],
        env={**os.environ, **child_environment(settings), **home, **environment},
        stdout=subprocess.DEVNULL,
        timeout=300,
        check=False,
    ).returncode


def test_20_to_22_killed_at_random(
    gates: GateLake, undisturbed: dict[str, str], account: Account, kills: Callable[[int, int], int]
) -> None:
    """A cycle at a time, killed or told to end a random moment after its session stands; what it left, the next one takes up."""
    moments, tries, killed = random.Random(42), kills(2, 30), 0
    rows = clean_rows(RAW_EVENTS)
    size = -(-len(rows) // tries)
    for number in range(tries):
        gates.add_bronze(rows[number * size : (number + 1) * size])
        with _begin(gates, *CYCLE_STEPS) as process:
            wait_until(lambda: _jvms(process) or process.poll() is not None)
            with suppress(subprocess.TimeoutExpired):  # else it was done before its time
                process.wait(moments.uniform(0, 20))
            by = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
            killed += process.poll() is None and by is signal.SIGKILL
            process.send_signal(by)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()  # a JVM call does not hear SIGTERM
    gates.cycle_to_the_end()
    _settle(gates, account, "20-22", "cycle kill -9 or SIGTERM at random", tries=tries, kills=killed)
    assert table_hashes(gates.lake) == undisturbed


@pytest.mark.parametrize(
    ("by", "fault"),
    [(signal.SIGKILL, "a day's backfill kill -9 at work"), (signal.SIGTERM, "a day's backfill SIGTERM at work")],
    ids=["killed", "told"],
)
def test_a_backfill_ended_at_work(
    gates: GateLake, undisturbed: dict[str, str], account: Account, by: signal.Signals, fault: str
) -> None:
    """Once it has begun to build the day anew; the next one begins again."""
    _start(gates)
    assert all(report.passed for report in gates.cycle())
    with _begin(gates, RECOMPUTE) as process:
        wait_until(lambda: gates.lake.state(HOURLY_STATS).waiting)
        process.send_signal(by)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -by, errors[-2000:]
    assert table_hashes(gates.lake) == undisturbed, "readers see the day as it was"
    with _begin(gates, RECOMPUTE) as again:
        _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors[-2000:]
    _settle(gates, account, "more", fault, kills=int(by is signal.SIGKILL))
    assert table_hashes(gates.lake) == undisturbed


def test_a_backfill_control_the_old_rows_go_first(gates: GateLake, account: Account) -> None:
    """A day deleted in one commit and written anew in the next, and ended between them."""
    _start(gates)
    assert all(report.passed for report in gates.cycle())
    gates.ctx.spark.sql(f"DELETE FROM wikistream.{HOURLY_STATS.identifier} WHERE stat_date = '{DAY}'")
    [(silver, gold)] = gates.rows(
        "select (select count(*) from silver.cleaned_events), (select sum(total_events) from gold.hourly_stats)"
    )
    fault = "a day's backfill kill -9; the old rows deleted in a separate commit"
    account.settle("more", fault, sent=map(str, range(silver)), found=map(str, range(gold or 0)), control=True)


def test_two_cycles_at_once(gates: GateLake, undisturbed: dict[str, str], account: Account) -> None:
    """The second one is refused or finds nothing left to do; nothing is done twice."""
    _start(gates)
    with _begin(gates, *CYCLE_STEPS) as first, _begin(gates, *CYCLE_STEPS) as second:
        endings = [(process.communicate(timeout=300)[1], process.returncode) for process in (first, second)]
    assert 0 in {code for _, code in endings}
    assert all(code == 0 or "is being written by process" in errors for errors, code in endings), endings
    assert all(report.passed for report in gates.cycle())
    _settle(gates, account, "more", "two cycles at once", kills=0)
    assert table_hashes(gates.lake) == undisturbed
