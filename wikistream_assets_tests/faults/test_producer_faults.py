"""The producer under fire. Numbers are those of the list of fault cases in the docs.

The oracle is the generator's ledger of ids, and the tables that an undisturbed producer ends with. Each case has a control, the
same fault against a weaker producer (``weak_producer``), which is seen to lose or to double.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from producer.contract import Reason
from producer.envelope import MAX_ORIGINAL_BYTES
from producer.eventstreams.recording import Synthetic
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.exceptions import FencedError
from producer.failpoints import AFTER_COMMIT, AFTER_PRODUCE
from producer.launch import Source, source_from
from producer.settings import ProducerSettings
from producer.sink import read_cursor
from producer.topics import DLQ_EVENTS, RAW_EVENTS
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.embedded import services
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.machine.ports import listening_process
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.faults.conftest import Account, ExactlyOnce, HashesOf, drained_hashes
from wikistream_assets_tests.faults.producing import (
    GENERATOR,
    PROCESS_SECONDS,
    accepted_ids,
    ended,
    finish,
    producer_settings,
    start,
)
from wikistream_assets_tests.faults.report import Case
from wikistream_assets_tests.producer.kafka_reader import committed, landed

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.spark]

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def settings(fresh_topics: Broker) -> ProducerSettings:
    return producer_settings(fresh_topics)


@pytest.fixture
def position(tmp_path: Path) -> Path:
    return tmp_path / "position"


def start_weak(
    server: EventStreamsServer, settings: ProducerSettings, position: Path, order: str, die_at: int = 0
) -> subprocess.Popen[str]:
    """Start the control."""
    module = "wikistream_assets_tests.faults.weak_producer"
    arguments = [server.url, settings.bootstrap_servers, str(position), order, str(die_at)]
    return subprocess.Popen([sys.executable, "-m", module, *arguments], text=True)


def settle_control(settings: ProducerSettings, account: Account, number: str, fault: str, tries: int = 1) -> Case:
    """Take down what a weaker producer did wrong."""
    found = landed(settings.bootstrap_servers)
    account.settle(number, fault, sent=accepted_ids(), found=found.ids, tries=tries, control=True)
    return account.cases[-1]


def kill_at_random(
    begin: Start, server: EventStreamsServer, broker: Broker, kills: int, by: signal.Signals = signal.SIGKILL
) -> list[float]:
    """Start, wait for the first records, end it a random moment later, again and again; then let it finish.

    Each life gets at most a part of the stream, so that there is something left for the next.

    Returns:
        Seconds from each start to the first new records.
    """
    moments = random.Random(42)
    seconds: list[float] = []
    server.behaviour = Behaviour(stall_after=GENERATOR.events // (kills + 2))
    for _ in range(kills):
        before = _records(broker)
        started = time.monotonic()
        with ended(begin()) as process:
            wait_until(lambda before=before: _records(broker) > before, PROCESS_SECONDS)
            seconds.append(time.monotonic() - started)
            time.sleep(moments.uniform(0, 0.15))  # the moment of the fault itself, not a wait for anything
            assert process.poll() is None
            process.send_signal(by)
            assert finish(process) == (0 if by is signal.SIGTERM else -by)
    server.behaviour = Behaviour()
    assert finish(begin()) == 0
    return seconds


def _records(broker: Broker) -> int:
    try:
        return sum(high for _, high in broker.offsets(RAW_EVENTS).values())
    except BrokerError:  # a topic made a moment ago may have no leader yet
        return 0


@pytest.mark.parametrize(
    ("by", "few", "many", "number", "fault"),
    [
        (signal.SIGKILL, 8, 60, "1", "producer kill -9 at random"),
        (signal.SIGTERM, 2, 20, "more", "producer SIGTERM at random"),
    ],
    ids=["killed", "told"],
)
def test_1_ended_at_random(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    fresh_topics: Broker,
    assert_exactly_once: ExactlyOnce,
    kills: Callable[[int, int], int],
    by: signal.Signals,
    few: int,
    many: int,
    number: str,
    fault: str,
) -> None:
    tries = kills(few, many)
    small = settings.model_copy(update={"producer_batch_events": 40})
    seconds = kill_at_random(lambda: start(source, server.url, small), server, fresh_topics, tries, by)
    killed = tries if by is signal.SIGKILL else 0
    assert_exactly_once(settings, source, number, fault, tries, killed, seconds)


def test_1_control_position_in_memory(
    server: EventStreamsServer, settings: ProducerSettings, position: Path, fresh_topics: Broker, account: Account
) -> None:
    kill_at_random(lambda: start_weak(server, settings, position, "memory"), server, fresh_topics, 8)
    settle_control(settings, account, "1", "producer kill -9 at random; position in memory", 8)


@pytest.mark.short
@pytest.mark.parametrize("place", [AFTER_PRODUCE, AFTER_COMMIT], ids=["2_before_commit", "3_after_commit"])
@pytest.mark.parametrize("batch", [1, 7])
def test_2_and_3_killed_around_the_commit(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    assert_exactly_once: ExactlyOnce,
    place: str,
    batch: int,
) -> None:
    assert finish(start(source, server.url, settings, failpoint=f"{place}@{batch}")) == -signal.SIGKILL
    cursor = read_cursor(settings.bootstrap_servers, source.identity)
    batches = batch - 1 if place == AFTER_PRODUCE else batch
    assert (cursor.counters.received if cursor else 0) == batches * settings.producer_batch_events
    assert finish(start(source, server.url, settings)) == 0
    number = "2" if place == AFTER_PRODUCE else "3"
    assert_exactly_once(settings, source, number, f"producer kill -9 at {place}, batch {batch}", kills=1)


@pytest.mark.short
@pytest.mark.parametrize(("order", "fault"), [("after", "doubled"), ("before", "lost")])
def test_2_and_3_control_position_beside_the_records(
    server: EventStreamsServer, settings: ProducerSettings, position: Path, account: Account, order: str, fault: str
) -> None:
    assert finish(start_weak(server, settings, position, order, die_at=7)) == -signal.SIGKILL
    assert finish(start_weak(server, settings, position, order)) == 0
    batch = list(GENERATOR.lines())[600:700]
    harmed = sum(1 for line in batch if line.event_id and line.domain in FOLLOWED_DOMAINS)
    assert harmed > 20
    case = settle_control(
        settings, account, "2-3", f"producer kill -9; position in a file, written {order} the records"
    )
    assert (case.doubled, case.lost) == ((harmed, 0) if fault == "doubled" else (0, harmed))


def test_4_a_zombie_is_fenced_and_writes_nothing(
    server: EventStreamsServer, settings: ProducerSettings, source: Source, assert_exactly_once: ExactlyOnce
) -> None:
    server.behaviour = Behaviour(stall_after=2_000)
    # its silent connection is given up when it wakes, then it reads what its successor has long since committed
    with ended(start(source, server.url, settings, producer_read_timeout_seconds=5.0)) as zombie:
        wait_until(lambda: _received(settings, source) >= 2_000, PROCESS_SECONDS)
        zombie.send_signal(signal.SIGSTOP)
        server.behaviour = Behaviour()
        assert finish(start(source, server.url, settings)) == 0
        assert_exactly_once(settings, source, "4", "a second producer takes over from one that hangs")
        zombie.send_signal(signal.SIGCONT)
        assert finish(zombie) == FencedError.exit_code
    assert_exactly_once(settings, source, "4", "the first producer wakes up, a zombie")


def test_4_control_two_without_fencing(
    server: EventStreamsServer, settings: ProducerSettings, tmp_path: Path, account: Account
) -> None:
    both = [start_weak(server, settings, tmp_path / name, "after") for name in ("one", "two")]
    assert [finish(process) for process in both] == [0, 0]
    case = settle_control(settings, account, "4", "two producers at once; no fencing")
    assert case.doubled == len(accepted_ids())


def _received(settings: ProducerSettings, source: Source) -> int:
    cursor = read_cursor(settings.bootstrap_servers, source.identity)
    return cursor.counters.received if cursor else 0


@pytest.fixture
def own_broker(settings_factory: SettingsFactory) -> Iterator[Settings]:
    """A broker of this test's own, to be killed."""
    owned = settings_factory()
    try:
        services.up(owned)
        yield owned
    finally:
        services.down(owned)


def kill_broker(owned: Settings) -> float:
    """Kill -9, and wait until the supervisor has brought it back; returns the seconds that took."""
    pid = broker_pid(owned)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    Broker(owned.bootstrap_servers).wait_ready(PROCESS_SECONDS)
    return time.monotonic() - killed


def broker_pid(owned: Settings) -> int:
    broker = listening_process(owned.kafka_port)
    assert broker is not None
    return broker.pid


def test_8_the_broker_is_killed(
    own_broker: Settings, assert_exactly_once: ExactlyOnce, kills: Callable[[int, int], int]
) -> None:
    settings = ProducerSettings(bootstrap_servers=own_broker.bootstrap_servers, producer_batch_events=100)
    source = source_from("synthetic", settings, GENERATOR)
    tries = kills(1, 20)
    seconds: list[float] = []
    slowly = Behaviour(speed=GENERATOR.hours * 3600 / (10 * tries))
    with (
        EventStreamsServer(Synthetic(GENERATOR), slowly) as server,
        ended(start(source, server.url, settings)) as process,
    ):
        for _ in range(tries):
            before = _received(settings, source)
            wait_until(lambda before=before: _received(settings, source) > before, PROCESS_SECONDS)
            seconds.append(kill_broker(own_broker))
        assert finish(process) == 0
    assert_exactly_once(settings, source, "8", "broker kill -9 while the producer sends", tries, tries, seconds)


def test_8_control_fire_and_forget(own_broker: Settings, account: Account) -> None:
    producer = Producer({"bootstrap.servers": own_broker.bootstrap_servers, "acks": 0, "retries": 0, "log_level": 0})
    numbers = iter(range(1_000_000))
    for _ in range(1_000):
        producer.produce(RAW_EVENTS, value=str(next(numbers)))
    producer.flush()
    pid = broker_pid(own_broker)
    os.kill(pid, signal.SIGSTOP)  # as good as dead: what it is sent now reaches nobody
    for _ in range(1_000):
        producer.produce(RAW_EVENTS, value=str(next(numbers)))
    producer.flush(2)
    os.kill(pid, signal.SIGKILL)
    Broker(own_broker.bootstrap_servers).wait_ready(PROCESS_SECONDS)
    producer.flush(PROCESS_SECONDS)
    found = [(record.value() or b"").decode() for record in committed(own_broker.bootstrap_servers, RAW_EVENTS)]
    sent = map(str, range(next(numbers)))
    account.settle("8", "broker kill -9 while a producer sends; acks=0", sent=sent, found=found, control=True)


def test_9_the_broker_hangs(own_broker: Settings, assert_exactly_once: ExactlyOnce) -> None:
    settings = ProducerSettings(bootstrap_servers=own_broker.bootstrap_servers, producer_batch_events=100)
    source = source_from("synthetic", settings, GENERATOR)
    twenty_seconds = Behaviour(speed=GENERATOR.hours * 3600 / 20)
    with EventStreamsServer(Synthetic(GENERATOR), twenty_seconds) as server:
        with ended(start(source, server.url, settings)) as process:
            wait_until(lambda: _received(settings, source), PROCESS_SECONDS)
            pid = broker_pid(own_broker)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(30)  # the fault itself
            os.kill(pid, signal.SIGCONT)
            code = finish(process)
        if code != 0:  # it gave up on the broker: its keeper starts it again
            server.behaviour = Behaviour()
            assert finish(start(source, server.url, settings)) == 0
    assert_exactly_once(settings, source, "9", "broker hangs for 30 s (SIGSTOP) while the producer sends")


def test_9_control_what_timed_out_is_sent_again(own_broker: Settings, account: Account) -> None:
    """Without idempotence: what the broker was sent before it hung is there when it wakes, and then once more."""
    failed: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append((message.value() or b"").decode())

    def send(producer: Producer, numbers: Iterable[str]) -> None:
        for number in numbers:
            producer.produce(RAW_EVENTS, value=number, on_delivery=delivered)
        producer.flush(PROCESS_SECONDS)

    config = {"bootstrap.servers": own_broker.bootstrap_servers, "acks": "all", "log_level": 0}
    producer = Producer({**config, "message.timeout.ms": 5_000, "retries": 0})
    send(producer, map(str, range(1_000)))
    pid = broker_pid(own_broker)
    os.kill(pid, signal.SIGSTOP)
    try:
        send(producer, map(str, range(1_000, 2_000)))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert failed
    send(Producer(config), failed.copy())
    found = [(record.value() or b"").decode() for record in committed(own_broker.bootstrap_servers, RAW_EVENTS)]
    sent = map(str, range(2_000))
    fault = "broker hangs; a producer without idempotence sends again what timed out"
    account.settle("9", fault, sent=sent, found=found, control=True)


def test_11_each_kind_of_garbage_is_a_dead_letter(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    account: Account,
    hashes_of: HashesOf,
    settings_factory: SettingsFactory,
) -> None:
    """Malformed, a megabyte, a wrong type, no id, a clock in the future, ..: the line as it was sent, and why it was rejected."""
    assert finish(start(source, server.url, settings)) == 0
    bad = [line for line in GENERATOR.lines() if line.defect is not None]
    assert {line.defect for line in bad} == set(Reason)
    letters = [json.loads(record.value() or b"") for record in committed(settings.bootstrap_servers, DLQ_EVENTS)]
    account.settle(
        "11",
        "garbage of each kind",
        sent=[f"{line.defect} {b64encode(line.data[:MAX_ORIGINAL_BYTES]).decode()}" for line in bad],
        found=[f"{letter['reason']} {letter['original']}" for letter in letters],
        tries=len(set(Reason)),
    )
    drained = drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))
    undisturbed = hashes_of(line.data for line in GENERATOR.lines() if line.defect is None)
    assert drained["bronze.raw_events"] == undisturbed["bronze.raw_events"], "garbage takes no event with it"


def test_11_control_what_cannot_be_read_is_left_out(
    server: EventStreamsServer, settings: ProducerSettings, position: Path, account: Account
) -> None:
    assert finish(start_weak(server, settings, position, "after")) == 0
    found = landed(settings.bootstrap_servers)
    assert sorted(found.ids) == sorted(accepted_ids())
    account.settle(
        "11",
        "garbage of each kind; a producer that leaves out what it cannot read",
        sent=[line.defect for line in GENERATOR.lines() if line.defect is not None],
        found=found.reasons.elements(),
        control=True,
    )


def test_12_the_dead_letter_topic_takes_nothing(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    fresh_topics: Broker,
    assert_exactly_once: ExactlyOnce,
) -> None:
    """The producer stops at the first letter it cannot write, and drops neither it nor what comes after."""
    with refusing(fresh_topics, DLQ_EVENTS):
        assert finish(start(source, server.url, settings)) not in (0, -signal.SIGKILL)
        cursor = read_cursor(settings.bootstrap_servers, source.identity)
        assert (cursor.counters.received if cursor else 0) < GENERATOR.events
    # the broker may still be ending the transaction that was broken off: its keeper starts it again
    wait_until(lambda: finish(start(source, server.url, settings)) == 0, PROCESS_SECONDS)
    assert_exactly_once(settings, source, "12", "the dead-letter topic takes nothing for a while")


def test_12_control_letters_are_sent_and_forgotten(fresh_topics: Broker, account: Account) -> None:
    producer = Producer({"bootstrap.servers": fresh_topics.bootstrap_servers, "log_level": 0})
    with refusing(fresh_topics, DLQ_EVENTS):
        for number in range(10):
            producer.produce(DLQ_EVENTS, value=f"{number}: a letter that nobody asks after")
        producer.flush(PROCESS_SECONDS)
    found = [(record.value() or b"").decode() for record in committed(fresh_topics.bootstrap_servers, DLQ_EVENTS)]
    sent = (f"{number}: a letter that nobody asks after" for number in range(10))
    account.settle(
        "12", "the dead-letter topic takes nothing; letters sent and forgotten", sent=sent, found=found, control=True
    )


@contextmanager
def refusing(broker: Broker, topic: str) -> Iterator[None]:
    """Let a topic refuse every record for a while: none is small enough for it; the markers of transactions are."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    name = "max.message.bytes"
    usual = broker.describe_config(topic)[name]

    def put(value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(timeout=30)
        wait_until(lambda: broker.describe_config(topic)[name] == value)

    put("100")
    try:
        yield
    finally:
        put(usual)
