"""Bronze under fire: kills at every boundary, a dying broker, a damaged or missing checkpoint, two writers.

The oracle is the list of ids that were sent, and the hashes of a lake into which the same topics were drained undisturbed. The
controls are the same faults against weaker ways of working: a plain ``foreachBatch`` append, the obvious way to write this job;
two writers without the lock; a JVM that outlives its killed Python without the JVM's own lock; a reader that does not wait for
transactions to be committed.
"""

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from producer.topics import EVENT_TOPICS
from producer.topics import RAW_EVENTS as RAW_TOPIC
from wikistream_assets.embedded import leases, services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine import batch, fence
from wikistream_assets.engine.failpoints import (
    BRONZE_AFTER_CHECKPOINT,
    BRONZE_AFTER_COMMIT,
    BRONZE_AFTER_DEAD_LETTERS,
    BRONZE_AFTER_OFFSETS,
    BRONZE_BEFORE_COMMIT,
    BRONZE_ON_BRANCH,
)
from wikistream_assets.engine.fence import FencedTable
from wikistream_assets.engine.ingest import drain
from wikistream_assets.exceptions import BrokerError, WriterBusyError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import append_rows
from wikistream_assets.machine.ports import listening_process
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.raw_events import parse
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep.maintenance import maintain
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import PROCESS_SECONDS, assert_sound, batches, event_ids, streaming
from wikistream_assets_tests.faults.bronze_sends import BATCH_RECORDS, EVENTS, messages, sent_ids
from wikistream_assets_tests.faults.conftest import Account, SmallDisk, Undisturbed, catalog_locked, fill
from wikistream_assets_tests.kafka_records import event_message, open_transaction, produce
from wikistream_assets_tests.producer.samples import ID, line
from wikistream_assets_tests.running import wait_until_read
from wikistream_assets_tests.upkeep.test_maintenance import LONG_AGO

pytestmark = [pytest.mark.faults, pytest.mark.spark, pytest.mark.kafka]

_REFUSED = "is being written by process"


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers, bronze_batch_records=BATCH_RECORDS)


def run_until_killed(settings: Settings, failpoint: str) -> None:
    with streaming(settings, "--once", WIKISTREAM_FAILPOINT=failpoint) as stream:
        assert stream.exit_code() == -signal.SIGKILL, stream.log


@pytest.mark.parametrize(
    ("failpoint", "committed"),
    [
        (BRONZE_AFTER_OFFSETS, 0),
        (BRONZE_AFTER_DEAD_LETTERS, 0),
        (f"{BRONZE_BEFORE_COMMIT}@2", 1),
        (BRONZE_ON_BRANCH, 0),
        pytest.param(f"{BRONZE_AFTER_COMMIT}@2", 2, marks=pytest.mark.short),
        (BRONZE_AFTER_CHECKPOINT, 1),
    ],
)
def test_13_killed_at_each_boundary(
    lake: Lakehouse,
    settings: Settings,
    assert_undisturbed: Undisturbed,
    account: Account,
    failpoint: str,
    committed: int,
) -> None:
    produce(settings.bootstrap_servers, messages())
    run_until_killed(settings, failpoint)
    assert len(batches(lake)) == committed
    report = drain(job_in(settings))
    assert report.batches > 0
    account.settle("13", f"Bronze kill -9 at {failpoint}", kills=1, sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


def test_13_killed_between_data_files_and_commit(
    lake: Lakehouse, settings: Settings, assert_undisturbed: Undisturbed, account: Account
) -> None:
    """The catalog is held until the data files are there: the kill falls between them and the commit, not near it."""
    drain(job_in(settings))  # notes the topics in the catalog: only the batch's own commit is left to be held
    # without dead letters, whose commit comes first and would be the one that is held
    produce(settings.bootstrap_servers, (message for message in messages() if message.topic == RAW_TOPIC))
    files = settings.warehouse / "bronze" / "raw_events" / "data"
    with streaming(settings, "--once") as stream:
        wait_until(lambda: len(lake.state(RAW_EVENTS).refs) > 1)  # the batch's branch
        with catalog_locked(settings.catalog_db):
            wait_until(lambda: _parquet(files))
            stream.signal(signal.SIGKILL)
        stream.exit_code()
    assert batches(lake) == []
    drain(job_in(settings))
    account.settle(
        "13", "Bronze kill -9 between data files and commit", kills=1, sent=sent_ids(), found=event_ids(lake)
    )
    assert_undisturbed(lake, settings, letters=0)


def test_13_killed_at_random(
    lake: Lakehouse,
    settings: Settings,
    assert_undisturbed: Undisturbed,
    account: Account,
    kills: Callable[[int, int], int],
) -> None:
    """The stream that runs for ever, killed or told to end a random moment after new events came."""
    moments, tries = random.Random(42), kills(2, 40)
    everything = list(messages())
    size = -(-len(everything) // tries)
    seconds: list[float] = []
    killed = 0
    for number in range(tries):
        before, started = len(batches(lake)), time.monotonic()
        with streaming(settings) as stream:
            produce(settings.bootstrap_servers, everything[number * size : (number + 1) * size])
            if number % 2:  # amid what comes first after a start
                wait_until(lambda before=before: len(batches(lake)) > before, PROCESS_SECONDS)
                seconds.append(time.monotonic() - started)
            time.sleep(moments.uniform(0, 1 if number % 2 else 8))  # the moment of the fault itself
            stream.signal(signal.SIGTERM if number % 5 == 4 else signal.SIGKILL)
            killed += stream.exit_code() == -signal.SIGKILL
    with streaming(settings, "--once") as stream:
        assert stream.exit_code() == 0, stream.log
    fault = "Bronze kill -9 or SIGTERM at random"
    account.settle("13", fault, sent=sent_ids(), found=event_ids(lake), tries=tries, kills=killed, seconds=seconds)
    assert_undisturbed(lake, settings)


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "fenced"])
def test_13_a_jvm_that_outlives_its_killed_python(
    lake: Lakehouse,
    settings: Settings,
    assert_undisturbed: Undisturbed,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    locked: bool,
) -> None:
    """Python is killed while its JVM stands in the commit; the next writer starts; then that JVM goes on and commits.

    The next writer waits for it; without the lock it does not, and then the commit comes too late: it is on the branch of one who
    is gone. What two plain appends would leave is shown by the control of case 18.
    """
    if not locked:
        monkeypatch.setattr(leases, "lock_in_jvm", lambda *_: nullcontext())
    drain(job_in(settings))  # as above
    produce(settings.bootstrap_servers, (message for message in messages() if message.topic == RAW_TOPIC))
    with streaming(settings, "--once") as stream:
        wait_until(lambda: _parquet(settings.warehouse / "bronze" / "raw_events" / "data"))
        with catalog_locked(settings.catalog_db):
            (orphan,) = stream.jvms()
            # the data files are there, what is left is the commit on the branch, and that waits for the catalog
            wait_until(lambda: orphan.cpu_percent(0.3) < 10)
            orphan.suspend()
            state = lake.state(RAW_EVENTS)
            assert [state.head_id(branch) for branch in state.batch_branches] == [state.head_id()]
            # A JVM ends when its parent's end of this pipe closes, sooner or later: here, when the test lets go of it.
            pipe = Path(f"/proc/{orphan.pid}/fd/0").open("wb")  # noqa: SIM115  # closed by the block below
            stream.signal(signal.SIGKILL)
            stream.exit_code()
    successor = threading.Thread(target=drain, args=(job_in(settings),))
    with pipe:
        successor.start()
        if not locked:
            successor.join()
            assert len(event_ids(lake)) == EVENTS
        orphan.resume()
        wait_until(lambda: orphan.cpu_percent(0.3) < 10)
    orphan.wait(60)
    successor.join()
    fault = "Python kill -9 in the commit, its JVM lives on and commits" + ("" if locked else "; no lock in the JVM")
    account.settle("13", fault, kills=1, sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings, letters=0)


def test_the_jvm_dies_with_its_parent_and_its_lock_with_it(lake: Lakehouse, settings: Settings) -> None:
    children: list[psutil.Process] = []

    def owns_the_lock() -> bool:
        children[:] = psutil.Process(stream.process.pid).children(recursive=True)
        lock = f"{RAW_EVENTS.identifier}.jvm.lock"
        with suppress(psutil.Error):  # a helper of the start that has just ended
            return any(opened.path.endswith(lock) for child in children for opened in child.open_files())
        return False

    with streaming(settings) as stream:
        wait_until(owns_the_lock)
        stream.signal(signal.SIGKILL)
        stream.exit_code()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []


@pytest.mark.parametrize("damage", ["commit removed", "checkpoint deleted", "offsets of another run"])
def test_14_and_15_the_checkpoint_does_not_matter(
    lake: Lakehouse,
    settings: Settings,
    assert_undisturbed: Undisturbed,
    account: Account,
    damage: str,
) -> None:
    produce(settings.bootstrap_servers, messages())
    drain(job_in(settings))
    checkpoint = settings.checkpoints / EDITS.name
    commits = checkpoint / "commits"
    last = max(int(path.name) for path in commits.glob("[0-9]*"))
    assert last >= 2
    if damage == "commit removed":
        for name in (f"{last}", f".{last}.crc"):
            (commits / name).unlink()
    elif damage == "checkpoint deleted":
        shutil.rmtree(checkpoint)
    else:
        for name in ("commits", "offsets"):
            for path in (checkpoint / name).glob("[1-9]*"):
                path.unlink()
    before = lake.state(RAW_EVENTS).head()
    report = drain(job_in(settings))
    assert (report.records, report.batches) == (0, 0)
    assert lake.state(RAW_EVENTS).head() == before
    number = "15" if damage == "checkpoint deleted" else "14"
    account.settle(number, f"checkpoint: {damage}", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


def test_14_a_batch_that_comes_again_is_not_counted(spark: SparkSession, lake: Lakehouse, settings: Settings) -> None:
    """What a replay by Spark itself would do: the same records handed to the batch again, whole and with new ones behind."""
    produce(settings.bootstrap_servers, messages())
    drain(job_in(settings))
    before = lake.state(RAW_EVENTS).head()
    _write_everything(batch.BatchWriter(job_in(settings)), spark, settings)
    assert lake.state(RAW_EVENTS).head() == before
    produce(settings.bootstrap_servers, [event_message("id-new", line().replace(ID, "id-new"))])
    _write_everything(batch.BatchWriter(job_in(settings)), spark, settings)
    assert batches(lake)[-1].counts is not None
    assert batches(lake)[-1].counts["batch"] == {"records": 1, "rows": 1, "dead_letters": 0, "duplicates": 0}
    assert_sound(lake)


@pytest.mark.short
def test_13_to_15_control_a_plain_append_doubles_in_the_same_window(
    spark: SparkSession, lake: Lakehouse, settings: Settings, account: Account
) -> None:
    """Committed, then the checkpoint's last commit is lost, then the batch comes again."""
    produce(settings.bootstrap_servers, messages())
    _plain_drain(spark, settings)
    once = event_ids(lake)  # with the redeliveries, which a plain append keeps
    commits = settings.checkpoints / "plain" / "commits"
    last = max(int(path.name) for path in commits.glob("[0-9]*"))
    for name in (f"{last}", f".{last}.crc"):
        (commits / name).unlink()
    _plain_drain(spark, settings)
    found = event_ids(lake)
    assert set(found) == set(once)
    assert 0 < len(found) - len(once) <= BATCH_RECORDS, "the last batch is there twice"
    fault = "a batch committed, not in the checkpoint, comes again; plain foreachBatch append"
    account.settle("13-15", fault, sent=once, found=found, control=True)


def _in_between(monkeypatch: pytest.MonkeyPatch, method: str, other: Callable[[], None]) -> None:
    """Let ``other`` do its work when the lake is first asked for ``method``, and before that is done."""
    original, waiting = getattr(Lakehouse, method), [other]

    def overtaken(lake: Lakehouse, *how: Any, **named: Any) -> Any:
        if waiting:
            waiting.pop()()
        return original(lake, *how, **named)

    monkeypatch.setattr(Lakehouse, method, overtaken)


@pytest.mark.parametrize("moment", ["create_branch", "advance"])
@pytest.mark.short
def test_18_two_writers_without_the_lock(
    spark: SparkSession,
    lake: Lakehouse,
    settings: Settings,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    assert_undisturbed: Undisturbed,
    moment: str,
) -> None:
    """Both have found the same events to be new when one writes; the other is about to make its branch, or to move main to it."""
    first, second = _two_writers(settings)
    _in_between(monkeypatch, moment, lambda: _write_everything(first, spark, settings))
    with pytest.raises(WriterBusyError, match="was written meanwhile, by another process"):
        _write_everything(second, spark, settings)
    account.settle("18", f"two writers at once; no lock, at {moment}", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


@pytest.mark.short
def test_18_a_writer_that_was_taken_for_dead_writes_on(
    spark: SparkSession,
    lake: Lakehouse,
    settings: Settings,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    assert_undisturbed: Undisturbed,
) -> None:
    """Its branch was dropped while Spark wrote: Iceberg makes it once more, on the head that the successor has left."""
    first, second = _two_writers(settings)
    append, waiting = append_rows, [lambda: _write_everything(first, spark, settings)]

    def paused(rows: DataFrame, spec: TableSpec, properties: Mapping[str, str], branch: str) -> None:
        if waiting:
            waiting.pop()()
            lake.create_branch(spec, branch)  # as Iceberg's Java does when it commits to one that is gone
        append(rows, spec, properties, branch)

    monkeypatch.setattr(fence, "append_rows", paused)
    with pytest.raises(WriterBusyError, match="was written meanwhile, by another process"):
        _write_everything(second, spark, settings)
    account.settle("18", "a writer taken for dead writes on; no lock", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


@pytest.mark.short
def test_18_control_two_writers_without_lock_and_fence_double(
    spark: SparkSession, lake: Lakehouse, settings: Settings, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iceberg lets both append to main: two writers that start from the same position both write the same events."""

    def plain(self: FencedTable, rows: DataFrame, position: object, properties: Mapping[str, str], **_: object) -> None:
        append_rows(rows, self._spec, properties)

    first, second = _two_writers(settings)
    monkeypatch.setattr(FencedTable, "append", plain)
    _write_everything(first, spark, settings)
    # the second one has looked for known events before the first committed
    monkeypatch.setattr(batch, "_known_ids", lambda _, parsed, __: parsed.select("event_id").limit(0))
    _write_everything(second, spark, settings)
    found = event_ids(lake)
    assert found == sorted(sent_ids() * 2)
    account.settle("18", "two writers at once; no lock, plain append", sent=sent_ids(), found=found, control=True)


@pytest.mark.short
def test_18_maintenance_commits_while_a_batch_is_written(
    spark: SparkSession,
    lake: Lakehouse,
    settings: Settings,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    assert_undisturbed: Undisturbed,
) -> None:
    """Main has moved, but not its position: the batch is written once more, on the new head."""
    produce(settings.bootstrap_servers, messages())
    advance, others = Lakehouse.advance, [RAW_EVENTS, DEAD_LETTER]

    def behind_a_commit(lake: Lakehouse, spec: TableSpec, *how: Any) -> None:
        if spec in others:
            others.remove(spec)
            lake.append(spec)
        advance(lake, spec, *how)

    monkeypatch.setattr(Lakehouse, "advance", behind_a_commit)
    _write_everything(batch.BatchWriter(job_in(settings)), spark, settings)
    assert not others
    account.settle("18", "another commit while a batch is written", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


def test_18_two_writers_at_once(
    lake: Lakehouse, settings: Settings, assert_undisturbed: Undisturbed, account: Account
) -> None:
    """Two processes are told to stream: one does, the other waits and takes over; a drain beside them waits as well."""
    everything = list(messages())
    with streaming(settings) as first, streaming(settings) as second:
        both = (first, second)
        wait_until(lambda: any(_REFUSED in stream.log for stream in both))
        (waiting,) = (stream for stream in both if _REFUSED in stream.log)
        (running,) = (stream for stream in both if stream is not waiting)
        assert f"{_REFUSED} {running.process.pid}" in waiting.log
        produce(settings.bootstrap_servers, everything[: EVENTS // 2])
        assert drain(job_in(settings)).waited
        assert waiting.process.poll() is None
        running.signal(signal.SIGTERM)
        assert running.exit_code() == 0, running.log
        produce(settings.bootstrap_servers, everything[EVENTS // 2 :])
        wait_until_read(settings)
        waiting.signal(signal.SIGTERM)
        assert waiting.exit_code() == 0, waiting.log
    account.settle("18", "two writers at once", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


@pytest.fixture
def own_broker(settings_factory: SettingsFactory) -> Iterator[Settings]:
    """A home with a broker of this test's own, to be killed."""
    home = settings_factory(bronze_batch_records=BATCH_RECORDS // 8)
    try:
        services.up(home)
        yield home
    finally:
        services.down(home)


def test_8_the_broker_is_killed_while_bronze_drains(
    own_broker: Settings, assert_undisturbed: Undisturbed, account: Account, kills: Callable[[int, int], int]
) -> None:
    produce(own_broker.bootstrap_servers, messages())
    lake = local_lake(own_broker)
    seconds: list[float] = []
    with ExitStack() as streams:
        stream = streams.enter_context(streaming(own_broker))
        for _ in range(kills(2, 20)):
            before = len(batches(lake))
            if stream.process.poll() is not None:  # the broker was away for longer than Spark waits
                assert "start it again to go on" in stream.log or "does not answer" in stream.log
                stream = streams.enter_context(streaming(own_broker))
            wait_until(lambda before=before: len(batches(lake)) > before or not _lag(own_broker, lake))
            killed = time.monotonic()
            _kill_broker(own_broker)
            seconds.append(time.monotonic() - killed)
        if stream.process.poll() is not None:
            stream = streams.enter_context(streaming(own_broker))
        wait_until_read(own_broker)
        stream.signal(signal.SIGTERM)
        assert stream.exit_code() == 0, stream.log
    account.settle(
        "8",
        "broker kill -9 while Bronze streams",
        sent=sent_ids(),
        found=event_ids(lake),
        tries=len(seconds),
        kills=len(seconds),
        seconds=seconds,
    )
    assert_undisturbed(lake, own_broker)


def test_8_what_a_killed_transaction_left_is_not_read(
    own_broker: Settings,
    spark: SparkSession,
    lake: Lakehouse,
    settings: Settings,
    assert_undisturbed: Undisturbed,
    account: Account,
) -> None:
    """The broker dies amid a transaction, and the records come again in the next one. The control does not wait for commits."""
    records = [message for message in messages() if message.topic == RAW_TOPIC]
    broken_off = open_transaction(own_broker.bootstrap_servers)
    for message in records[:500]:
        broken_off.produce(message.topic, message.value, message.key)
    broken_off.flush(PROCESS_SECONDS)
    _kill_broker(own_broker)
    again = open_transaction(own_broker.bootstrap_servers)  # its id is the same: that ends what the other one began
    for message in records:
        again.produce(message.topic, message.value, message.key)
    again.commit_transaction(PROCESS_SECONDS)
    reading = settings.model_copy(update={"bootstrap_servers": own_broker.bootstrap_servers})
    committed, everything = (
        sorted(_event_ids_in_kafka(spark, reading, isolation)) for isolation in ("read_committed", "read_uncommitted")
    )
    expected = [message.key or "" for message in records]
    account.settle(
        "8", "broker kill -9 amid a transaction; reads uncommitted", sent=expected, found=everything, control=True
    )
    account.settle("8", "broker kill -9 amid a transaction", kills=1, sent=expected, found=committed)
    drain(job_in(reading))
    assert event_ids(lake) == sent_ids()
    produce(settings.bootstrap_servers, records)  # to the suite's broker, which nothing has happened to
    assert_undisturbed(lake, settings, letters=0)


def _kill_broker(settings: Settings) -> None:
    (connection,) = (
        connection
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == settings.kafka_port
    )
    psutil.Process(connection.pid).send_signal(signal.SIGKILL)
    _wait_for_broker(settings)


def _wait_for_broker(settings: Settings) -> None:
    Broker(settings.bootstrap_servers).wait_ready(timeout=90)


def _parquet(folder: Path) -> Sequence[Path]:
    return [path for path in folder.rglob("*.parquet") if path.stat().st_size > 0] if folder.exists() else []


def test_9_the_broker_hangs_while_bronze_streams(
    own_broker: Settings, assert_undisturbed: Undisturbed, account: Account
) -> None:
    records = list(messages())
    produce(own_broker.bootstrap_servers, records[:1_000])
    lake = local_lake(own_broker)
    broker = listening_process(own_broker.kafka_port)
    assert broker is not None
    with streaming(own_broker) as stream:
        wait_until(lambda: batches(lake))
        broker.suspend()
        time.sleep(30)  # the fault itself
        broker.resume()
        produce(own_broker.bootstrap_servers, records[1_000:])
        wait_until_read(own_broker)
        stream.signal(signal.SIGTERM)
        assert stream.exit_code() == 0, stream.log
    account.settle("9", "broker hangs for 30 s (SIGSTOP) while Bronze streams", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, own_broker)


def test_19_the_catalog_is_locked_for_a_minute(
    lake: Lakehouse, settings: Settings, assert_undisturbed: Undisturbed, account: Account
) -> None:
    """Longer than anybody waits for the lock: the stream ends with one line, its keeper starts it again."""
    produce(settings.bootstrap_servers, messages())
    with streaming(settings, "--once") as stream:
        wait_until(lambda: batches(lake))
        with catalog_locked(settings.catalog_db):
            time.sleep(60)  # the fault itself
        stream.exit_code()
    with streaming(settings, "--once") as again:
        assert again.exit_code() == 0, again.log
    account.settle("19", "catalog locked for 60 s", sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, settings)


_BRANCH_BYTES = 128 * 1024


@pytest.mark.parametrize("part", ["", "warehouse"], ids=["home", "warehouse"])
def test_26_the_disk_is_full(
    settings_factory: SettingsFactory,
    fresh_topics: Broker,
    assert_undisturbed: Undisturbed,
    account: Account,
    small_disk: SmallDisk,
    part: str,
) -> None:
    """The home's disk, or the tables' own: then a batch begins, and leaves files that no snapshot knows."""
    full = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers, bronze_batch_records=BATCH_RECORDS)
    disk = full.root / part
    small_disk(disk, 8)
    open_home(full)
    lake = local_lake(full)
    # the letters first: what then does not fit are the files of events, several at a time
    everything = sorted(messages(), key=lambda message: message.topic)
    produce(full.bootstrap_servers, everything[: EVENTS // 2])
    with streaming(full) as stream:
        wait_until(lambda: len(batches(lake)) > 0 and not _lag(full, lake), PROCESS_SECONDS)
        filler = fill(disk)
        if part:  # room for the metadata of the batch's branch, and not for its rows
            os.truncate(filler, filler.stat().st_size - _BRANCH_BYTES)
        head, known = lake.state(RAW_EVENTS).head(), set(full.warehouse.rglob("*.parquet"))
        produce(full.bootstrap_servers, everything[EVENTS // 2 :])
        # 1, or Python's own 120: its last words may not fit on the disk either
        assert stream.exit_code() in (1, 120), stream.log
    assert lake.state(RAW_EVENTS).head() == head, "nothing of a batch that did not fit"
    left = set(full.warehouse.rglob("*.parquet")) - known
    assert left or not part
    filler.unlink()
    with streaming(full, "--once") as again:
        assert again.exit_code() == 0, again.log
    for file in full.warehouse.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    list(maintain(job_in(full), (RAW_EVENTS, DEAD_LETTER), orphans=True))
    assert not any(file.exists() for file in left)
    fault = f"the {part or 'home'}'s disk full while Bronze writes"
    account.settle("26", fault, sent=sent_ids(), found=event_ids(lake))
    assert_undisturbed(lake, full)


def _lag(settings: Settings, lake: Lakehouse) -> bool:
    """Whether Kafka has something that Bronze has not; None of it counts while the broker does not answer."""
    broker = Broker(settings.bootstrap_servers)
    try:
        return broker.has_committed_records(lake.state(RAW_EVENTS).position, broker.ends(EVENT_TOPICS))
    except BrokerError:
        return True


def _event_ids_in_kafka(spark: SparkSession, settings: Settings, isolation: str) -> list[str]:
    keys = _kafka(spark, settings, isolation).where(sf.col("topic") == RAW_TOPIC).select(sf.col("key").cast("string"))
    return [row["key"] for row in keys.collect()]


def _kafka(spark: SparkSession, settings: Settings, isolation: str = "read_committed") -> DataFrame:
    """Everything in both topics, as a batch."""
    return (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", "raw-events,dlq-events")
        .option("kafka.isolation.level", isolation)
        .load()
    )


def _two_writers(settings: Settings) -> tuple[batch.BatchWriter, batch.BatchWriter]:
    """Two that start from the same position, and everything is still to be read."""
    produce(settings.bootstrap_servers, messages())
    return batch.BatchWriter(job_in(settings)), batch.BatchWriter(job_in(settings))


def _write_everything(writer: batch.BatchWriter, spark: SparkSession, settings: Settings) -> None:
    """One batch of all that is in both topics."""
    writer.write(parse(_kafka(spark, settings)), 0, Broker(settings.bootstrap_servers).ends(EVENT_TOPICS))


def _plain_drain(spark: SparkSession, settings: Settings) -> None:
    """The obvious job: parse and append in ``foreachBatch``, the checkpoint as the only memory."""

    def append(records: DataFrame, _: int) -> None:
        event = sf.get_json_object(sf.col("value").cast("string"), "$.id").alias("event_id")
        records.select(event, "partition", "offset").createOrReplaceTempView("plain")
        columns = ", ".join(
            {"event_id": "event_id", "kafka_partition": "partition", "kafka_offset": "offset"}.get(column.name)
            or f"CAST(NULL AS {column.type})"
            for column in RAW_EVENTS.columns
        )
        records.sparkSession.sql(f"INSERT INTO wikistream.{RAW_EVENTS.identifier} SELECT {columns} FROM plain")

    (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", RAW_TOPIC)
        .option("kafka.isolation.level", "read_committed")
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", BATCH_RECORDS)
        .load()
        .writeStream.foreachBatch(append)
        .option("checkpointLocation", str(settings.checkpoints / "plain"))
        .trigger(availableNow=True)
        .start()
        .awaitTermination()
    )
