"""The catalog under fire: its answer is lost (case 17), it cannot be written, maintenance works beside the stream (16)."""

import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyiceberg.exceptions import CommitStateUnknownException
from pyspark.errors import IllegalArgumentException

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.ingest import drain
from wikistream_assets.exceptions import LakeError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake import spark_io
from wikistream_assets.lake.lakehouse import Lakehouse, LocalCatalog
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.upkeep.maintenance import maintain
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import event_ids, streaming, totals
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.faults.bronze_sends import BATCH_RECORDS, EVENTS, LETTERS, messages, sent_ids
from wikistream_assets_tests.faults.conftest import (
    Account,
    SmallDisk,
    Undisturbed,
    catalog_locked,
    drained_hashes,
    fill,
)
from wikistream_assets_tests.faults.weak_bronze import WeakBronze
from wikistream_assets_tests.kafka_records import Message, event_message, produce
from wikistream_assets_tests.producer.samples import line
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = [pytest.mark.faults, pytest.mark.spark]

PER_CYCLE = 60
"""Bronze rows that each cycle of case 17 finds."""


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers, bronze_batch_records=BATCH_RECORDS)


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


class Answers:
    """The catalog's answers, one after the other: each commit is made, and the answer to some of them gets lost."""

    def __init__(self) -> None:
        self.commits = 0
        self.lost = 0
        self.losing: Callable[[int], bool] = lambda _: False

    def begin(self, losing: Callable[[int], bool]) -> None:
        """Count from 0 again; ``losing`` says of which commit the answer is lost."""
        self.commits, self.losing = 0, losing

    def after(self, commit: Callable[..., Any]) -> Callable[..., Any]:
        """The commit with an answer that may get lost."""

        def committed(*arguments: Any, **keywords: Any) -> Any:
            answer = commit(*arguments, **keywords)
            number, self.commits = self.commits, self.commits + 1
            if self.losing(number):
                self.lost += 1
                raise CommitStateUnknownException("the catalog has committed, its answer was lost")
            return answer

        return committed


class _Writer:
    """Spark's writer, whose commits are answered by ``answers``."""

    def __init__(self, writer: Any, answers: Answers) -> None:
        self._writer, self._answers = writer, answers

    def option(self, *option: str) -> "_Writer":
        return _Writer(self._writer.option(*option), self._answers)

    def append(self) -> None:
        self._answers.after(self._writer.append)()

    def overwrite(self, condition: Any) -> None:
        self._answers.after(self._writer.overwrite)(condition)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Stands between the code and both of its ways to the catalog: Spark's writer, and PyIceberg's commit."""
    between = Answers()
    writer_of = spark_io._writer
    monkeypatch.setattr(spark_io, "_writer", lambda *arguments: _Writer(writer_of(*arguments), between))
    monkeypatch.setattr(LocalCatalog, "commit_table", between.after(LocalCatalog.commit_table))
    monkeypatch.setattr(LocalCatalog, "commit_together", between.after(LocalCatalog.commit_together))
    return between


@pytest.mark.kafka
def test_17_the_answers_to_commits_of_bronze_are_lost(
    lake: Lakehouse,
    settings: Settings,
    answers: Answers,
    assert_undisturbed: Undisturbed,
    account: Account,
) -> None:
    """Every second one, by chance: to the batch's branch, to its rows on it, to main."""
    produce(settings.bootstrap_servers, messages())
    chance, before = random.Random(17), -1
    answers.begin(lambda _: chance.random() < 0.5)
    while answers.lost > before:
        before = answers.lost
        with suppress(LakeError, CommitStateUnknownException):  # the latter is PyIceberg's, before the stream begins
            drain(job_in(settings))
    assert answers.lost > 2 * (EVENTS // BATCH_RECORDS)
    answers.begin(lambda _: False)
    account.settle(
        "17",
        "catalog commits Bronze's batch, its answer is lost",
        sent=sent_ids(),
        found=event_ids(lake),
        tries=answers.lost,
    )
    assert_undisturbed(lake, settings)


def test_17_control_a_writer_that_tries_again(
    lake: Lakehouse, settings: Settings, answers: Answers, account: Account
) -> None:
    """The obvious answer to an error is to try again."""
    gates, rows = GateLake(settings), clean_rows(RAW_EVENTS)[:10]
    answers.begin(lambda number: number == 0)
    for _ in range(2):
        with suppress(CommitStateUnknownException):
            gates.add_bronze(rows)
            break
    sent, found = [row["event_id"] for row in rows], event_ids(lake)
    assert found == sorted(sent * 2)
    account.settle("17", "the catalog's answer is lost; the writer tries again", sent=sent, found=found, control=True)


def test_17_the_answer_to_a_commit_of_a_cycle_is_lost(
    lake: Lakehouse,
    settings: Settings,
    answers: Answers,
    account: Account,
    settings_factory: SettingsFactory,
    kills: Callable[[int, int], int],
) -> None:
    """Each cycle has new events and loses the answer to another one of its commits; the next cycle goes on from there."""
    gates, rows = GateLake(settings), clean_rows(RAW_EVENTS)
    parts = [rows[start : start + PER_CYCLE] for start in range(0, len(rows), PER_CYCLE)]
    gates.add_bronze(parts[0])
    answers.begin(lambda _: False)
    assert all(report.passed for report in gates.cycle())
    commits, tries = answers.commits, kills(2, len(parts) - 1)
    assert commits > tries
    for number in range(tries):
        answers.begin(lambda _: False)
        gates.add_bronze(parts[1 + number])
        lost = number * commits // tries
        answers.begin(lambda commit, lost=lost: commit == lost)
        with pytest.raises(CommitStateUnknownException):
            gates.cycle()
    answers.begin(lambda _: False)
    for part in parts[1 + tries :]:
        gates.add_bronze(part)
    gates.cycle_to_the_end()
    published = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"
    account.settle(
        "17",
        "catalog commits a part of a cycle, its answer is lost",
        sent=[row["event_id"] for row in rows],
        found=[row[0] for row in gates.rows(published)],
        tries=tries,
    )
    calm = GateLake(settings_factory())
    calm.add_bronze(rows)
    assert all(report.passed for report in calm.cycle())
    assert table_hashes(lake) == table_hashes(calm.lake)


@pytest.mark.kafka
def test_the_catalog_cannot_be_written(
    lake: Lakehouse, settings: Settings, assert_undisturbed: Undisturbed, account: Account
) -> None:
    everything = list(messages())
    # at first PyIceberg finds out, before the stream begins; then Spark, in its commit
    for part in (everything[:1_000], everything[1_000:]):
        produce(settings.bootstrap_servers, part)
        before = lake.state(RAW_EVENTS).head()
        with read_only(settings.catalog_db), streaming(settings, "--once") as stream:
            assert stream.exit_code() == 1, stream.log
            assert "attempt to write a readonly database" in stream.log.splitlines()[-1]
        assert lake.state(RAW_EVENTS).head() == before
        drain(job_in(settings))
    account.settle("more", "the catalog file is read-only for a while", sent=sent_ids(), found=event_ids(lake), tries=2)
    assert_undisturbed(lake, settings)


@contextmanager
def read_only(file: Path) -> Iterator[None]:
    """Let nobody write the file, root neither; who has it open already still can."""
    bind, remount = ["mount", "--bind", file, file], ["mount", "-o", "remount,ro,bind", file]
    if any(subprocess.run(command, capture_output=True, check=False).returncode for command in (bind, remount)):
        pytest.skip("mounting a file over itself needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", file], check=True)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("number", "fault"),
    [("19", "catalog locked"), ("26", "disk full"), ("more", "the catalog file is read-only for a while")],
    ids=["locked", "full", "read_only"],
)
def test_control_a_batch_that_cannot_be_written_is_left_behind(
    settings_factory: SettingsFactory,
    fresh_topics: Broker,
    small_disk: SmallDisk,
    account: Account,
    tmp_path: Path,
    number: str,
    fault: str,
) -> None:
    if number == "26":
        small_disk(tmp_path / "disk", 8)
    settings = settings_factory(home=tmp_path / "disk", bootstrap_servers=fresh_topics.bootstrap_servers)
    open_home(settings)
    lake = local_lake(settings)
    rows = {row["event_id"]: row for row in clean_rows(RAW_EVENTS)}
    produce(settings.bootstrap_servers, (event_message(event_id, line()) for event_id in rows))
    faults = {"19": catalog_locked, "26": filled, "more": read_only}
    with closing(WeakBronze(settings.bootstrap_servers, earliest=True)) as writer:
        with faults[number](settings.catalog_db):
            lake.catalog.engine.dispose()  # who has the file open may write it still
            with pytest.raises((LakeError, OSError)):
                writer.append(lake, rows, len(rows) // 3)
        lake.catalog.engine.dispose()
        writer.append(lake, rows, len(rows) - len(rows) // 3)
    fault = f"{fault}; a writer that says so and goes on"
    account.settle(number, fault, sent=list(rows), found=event_ids(lake), control=True)


@contextmanager
def filled(file: Path) -> Iterator[None]:
    """Fill the disk on which the file lies."""
    filler = fill(file.parent)
    yield
    filler.unlink()


def test_16_control_expiry_that_knows_no_reader(gates: GateLake, account: Account) -> None:
    """A reader that keeps its place by itself comes back, and the snapshot it would go on from is gone."""
    rows = clean_rows(RAW_EVENTS)
    gates.add_bronze(rows[:300])
    place = gates.mains(RAW_EVENTS)[RAW_EVENTS.identifier]
    gates.add_bronze(rows[300:600])
    gates.add_bronze(rows[600:])
    spark, table = gates.ctx.spark, f"wikistream.{RAW_EVENTS.identifier}"
    found = [row["event_id"] for row in rows[:300]]
    now = datetime.now(UTC) + timedelta(seconds=1)
    spark.sql(
        f"CALL wikistream.system.expire_snapshots(table => '{table}', older_than => TIMESTAMP '{now}', retain_last => 1)"
    )
    with pytest.raises((IllegalArgumentException, Py4JJavaError), match=str(place)):
        found += [r.event_id for r in spark.read.option("start-snapshot-id", place).table(table).collect()]
    fault = "expiry that keeps the newest snapshot only, beside a reader that is behind"
    account.settle("16", fault, sent=[row["event_id"] for row in rows], found=found, control=True)


@pytest.mark.kafka
def test_16_maintenance_beside_the_stream_and_across_its_restart(
    fresh_topics: Broker, settings_factory: SettingsFactory, account: Account
) -> None:
    """Nothing is kept for its age: what the stream needs to go on stays because it is needed."""
    settings = settings_factory(
        bootstrap_servers=fresh_topics.bootstrap_servers,
        bronze_trigger_seconds=0.1,
        maintenance_snapshot_age_hours=0,
        maintenance_max_snapshots=3,
        maintenance_min_input_files=2,
    )
    gates = GateLake(settings)
    everything = list(messages())
    quarter, compacted = len(everything) // 4, 0
    for start in range(0, len(everything), quarter):
        before = gates.lake.state(RAW_EVENTS).newest_position()
        part = everything[start : start + quarter]
        with streaming(settings) as stream:
            produce(settings.bootstrap_servers, part[:10])
            wait_until(lambda before=before: gates.lake.state(RAW_EVENTS).newest_position() != before)
            feeding = threading.Thread(target=_feed, args=(settings, part[10:]))
            feeding.start()
            while feeding.is_alive():
                reports = maintain(job_in(settings), (RAW_EVENTS, DEAD_LETTER), orphans=False)
                compacted += sum(report.compacted for report in reports)
                assert stream.process.poll() is None, stream.log
            feeding.join()
            stream.signal(signal.SIGKILL)
    with streaming(settings) as stream:
        wait_until(lambda: totals(gates.lake)["records"] == EVENTS + EVENTS // 10 + LETTERS)
        stream.signal(signal.SIGTERM)
        assert stream.exit_code() == 0, stream.log
    assert compacted > 0
    account.settle(
        "16",
        "compaction and expiry beside the stream, which is killed (kill -9) meanwhile",
        sent=sent_ids(),
        found=event_ids(gates.lake),
        tries=4,
        kills=4,
    )
    assert table_hashes(gates.lake) == drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))


def _feed(settings: Settings, part: list[Message]) -> None:
    for start in range(0, len(part), 10):
        produce(settings.bootstrap_servers, part[start : start + 10])
