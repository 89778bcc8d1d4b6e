"""Real supervisord, real broker: started once, restarted when killed, stopped without a trace."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from producer.eventstreams.generator import Generator
from producer.topics import RAW_EVENTS
from wikistream_assets.embedded import programs as program_rows
from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.programs import Program, programs
from wikistream_assets.embedded.services import ServiceStatus
from wikistream_assets.exceptions import BrokerError, SetupError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.machine.ports import listening_process, refuse_taken_port
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, free_port, wait_until
from wikistream_assets_tests.kafka_records import Message, produce

pytestmark = pytest.mark.kafka

HomeFactory = Callable[..., Settings]


@pytest.fixture
def running_home(settings_factory: SettingsFactory) -> Iterator[HomeFactory]:
    """A maker of homes whose services are up; they are stopped at the end whatever happens."""
    started: list[Settings] = []

    def start(**fields: object) -> Settings:
        settings = settings_factory(**fields)
        started.append(settings)
        services.up(settings)
        return settings

    yield start
    for settings in started:
        services.down(settings)


def broker_state(settings: Settings) -> ServiceStatus:
    (state,) = services.status(settings)
    return state


def states(settings: Settings) -> dict[str, ServiceStatus]:
    return {service.name: service for service in services.status(settings)}


def processes_of(settings: Settings) -> list[int]:
    """Process ids that mention the home on their command line, found without the code under test."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(settings.root) in part for part in process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


def commit(settings: Settings, values: list[str]) -> None:
    produce(settings.bootstrap_servers, [Message(RAW_EVENTS, value.encode()) for value in values])


def values_in(settings: Settings) -> list[bytes | None]:
    return [record.value for record in Broker(settings.bootstrap_servers).tail(RAW_EVENTS, 100_000)]


def test_up_once_up_twice_other_settings_down(running_home: HomeFactory, settings_factory: SettingsFactory) -> None:
    settings = running_home()
    first = broker_state(settings)
    assert (first.name, first.state, first.port) == ("broker", "RUNNING", settings.kafka_port)
    assert first.pid in processes_of(settings)
    commit(settings, ["kept"])

    services.up(settings)
    assert broker_state(settings).pid == first.pid

    changed = settings.model_copy(update={"kafka_retention_hours": 24})
    services.up(changed)
    assert broker_state(changed).pid != first.pid
    assert Broker(changed.bootstrap_servers).describe_config(RAW_EVENTS)["retention.ms"] == "86400000"
    assert values_in(changed) == [b"kept"]

    listeners = [
        c for c in psutil.Process(broker_state(changed).pid).net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert {c.laddr.port for c in listeners} == {settings.kafka_port, settings.kafka_controller_port}
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listeners} == {"127.0.0.1"}

    assert services.down(changed) == ["broker"]
    assert processes_of(settings) == []
    assert broker_state(settings).state == "STOPPED"
    assert services.down(changed) == []


def test_a_killed_broker_comes_back_with_everything_committed(running_home: HomeFactory) -> None:
    settings = running_home()
    values = [f"value-{number}" for number in range(1000)]
    commit(settings, values)
    unfinished = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": "cut", "log_level": 0})
    unfinished.init_transactions(30)
    unfinished.begin_transaction()
    unfinished.produce(RAW_EVENTS, value="never committed")
    unfinished.flush(30)
    killed = broker_state(settings).pid
    assert killed is not None

    os.kill(killed, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(killed).status() == psutil.STATUS_STOPPED)
    spent = supervisor.processor_seconds(settings, "broker")
    wait_until(lambda: broker_state(settings).state == "SILENT")
    assert supervisor.processor_seconds(settings, "broker") == spent
    assert spent
    os.kill(killed, signal.SIGCONT)
    wait_until(lambda: broker_state(settings).state == "RUNNING")

    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: broker_state(settings).state == "RUNNING" and broker_state(settings).pid != killed)
    assert sorted(values_in(settings)) == sorted(value.encode() for value in values)
    unfinished.abort_transaction(60)
    commit(settings, ["after"])
    assert sorted(values_in(settings)) == sorted(value.encode() for value in [*values, "after"])


_BORROW = """
import sys, time
from wikistream_assets.embedded import services
from wikistream_assets.settings import load_settings
with services.broker_at_hand(load_settings()):
    print("at hand", flush=True)
    time.sleep(600)
"""


@contextmanager
def borrower(settings: Settings) -> Iterator[Callable[[], object]]:
    """Another process that has the broker at hand; yields what kills it."""
    environment = {**os.environ, **child_environment(settings)}
    with subprocess.Popen([sys.executable, "-c", _BORROW], env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"at hand\n"
            yield lambda: (process.kill(), process.wait())
        finally:
            process.kill()


def test_a_lent_broker_is_stopped_by_the_last_who_needs_it(settings: Settings) -> None:
    try:
        with borrower(settings) as kill:
            broker = broker_state(settings)
            assert broker.state == "RUNNING"
            with services.broker_at_hand(settings) as started:
                assert not started
                with services.broker_at_hand(settings):
                    assert not services.take_back_broker(settings), "three need it"
                kill()
                assert broker_state(settings).pid == broker.pid
        assert processes_of(settings) == [], "the last one has left, though the first was killed"

        with borrower(settings) as kill:
            kill()
        assert broker_state(settings).state == "RUNNING", "nobody has noticed yet"
        with services.broker_at_hand(settings) as started:
            assert not started
            broker = broker_state(settings)
            services.up(settings)
        assert (broker_state(settings).state, broker_state(settings).pid) == ("RUNNING", broker.pid)
        assert not services.take_back_broker(settings), "it was not lent any more"
        assert services.down(settings) == ["broker"]
    finally:
        services.down(settings)


def test_two_homes_side_by_side_and_the_orphan_of_one(running_home: HomeFactory, tmp_path: Path) -> None:
    one = running_home()
    deep = tmp_path / ("deep" * 20) / "home with 100% of a space"  # its socket would not fit into its path
    two = running_home(home=deep)
    commit(one, ["one"])
    commit(two, ["two"])
    assert values_in(one) == [b"one"]
    assert values_in(two) == [b"two"]

    supervisor = psutil.Process(broker_state(two).pid).ppid()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(supervisor))
    orphan = broker_state(two)
    assert orphan.state == "ORPHANED"
    services.up(two)  # ends the orphan, which holds the ports, and starts anew
    assert broker_state(two).state == "RUNNING"
    assert broker_state(two).pid != orphan.pid
    assert values_in(two) == [b"two"]

    supervisor = psutil.Process(broker_state(two).pid).ppid()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(supervisor))
    assert services.down(two) == ["broker"]
    assert processes_of(two) == []
    assert broker_state(one).state == "RUNNING"
    assert values_in(one) == [b"one"]


def test_a_changed_setting_or_source_restarts_what_it_concerns_and_a_capture_ends(
    running_home: HomeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ("broker", "source", "producer")  # the rest of the pipeline is started in e2e/test_always_on.py

    def rows(*arguments: Any) -> tuple[Program, ...]:
        return tuple(program for program in programs(*arguments) if program.name in ingest)

    monkeypatch.setattr(services, "programs", rows)
    settings = running_home()
    broker = broker_state(settings).pid
    services.up(settings, "synthetic")
    services.refuse_another_version(settings)
    first = states(settings)
    assert {name: first[name].state for name in ingest} == dict.fromkeys(ingest, "RUNNING")
    assert first["broker"].pid == broker, "what ran is left alone"
    services.up(settings)
    assert {name: state.pid for name, state in states(settings).items()} == {n: s.pid for n, s in first.items()}

    changed = settings.model_copy(update={"producer_batch_seconds": 0.1})
    services.up(changed, "synthetic")
    second = states(changed)
    assert [name for name in ingest if second[name].pid != first[name].pid] == ["producer"]
    assert not services.capture_is_read(changed)

    with monkeypatch.context() as upgrade:
        upgrade.setattr(program_rows, "version", lambda _: "99")
        services.up(changed, "synthetic")
        newer = states(changed)
        assert [name for name in ingest if newer[name].pid != second[name].pid] == ["source", "producer"]
        services.up(changed, "synthetic")
        assert {name: states(changed)[name].pid for name in ingest} == {name: newer[name].pid for name in ingest}
    with pytest.raises(SetupError, match="of another version: 'make up' restarts it"):
        services.refuse_another_version(changed)

    capture = tmp_path / "short.jsonl"
    recorded = Generator(events=60, hours=60 / 3600, malformed=0)  # a minute's events within seconds
    capture.write_bytes(b"\n".join(line.data for line in islice(recorded.lines(), 3)) + b"\n")
    services.up(changed, str(capture))
    third = states(changed)
    assert third["broker"].pid == broker
    assert third["source"].pid != second["source"].pid
    wait_until(lambda: states(changed)["producer"].state == "DONE")
    assert services.capture_is_read(changed)
    starts = (settings.root / "logs" / "supervisord.log").read_text().count("spawned: 'producer'")
    services.up(changed)
    assert states(changed)["producer"].state == "DONE"
    assert (settings.root / "logs" / "supervisord.log").read_text().count("spawned: 'producer'") == starts == 4
    assert services.down(changed) == ["broker", "source"]
    assert processes_of(settings) == []


@pytest.mark.parametrize("which", ["kafka_port", "kafka_controller_port"])
def test_a_taken_port_is_named_with_its_owner_and_its_setting(settings: Settings, which: str) -> None:
    port = getattr(settings, which)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(BrokerError) as caught:
            services.up(settings)
    text = str(caught.value)
    assert text.startswith(f"port {port} for the broker is in use by process {os.getpid()} (")
    assert f"set WIKISTREAM_{which.upper()} to another port" in text
    assert "\n" not in text
    assert processes_of(settings) == []
    assert broker_state(settings).state == "STOPPED"


def test_a_broker_that_cannot_start_leaves_nothing_running(settings: Settings) -> None:
    data = open_home(settings) / "kafka" / "data"
    data.mkdir()
    (data / "meta.properties").write_text("version=1\ncluster.id=of-another-node\nnode.id=7\n")
    with pytest.raises(BrokerError, match=r"the broker ends at its start \(.*node") as caught:
        services.up(settings)
    assert "\n" not in str(caught.value)
    assert processes_of(settings) == []


def test_status_of_a_home_that_is_not_there(settings: Settings) -> None:
    assert supervisor.processor_seconds(settings, "broker") is None
    assert broker_state(settings).state == "STOPPED"
    assert services.down(settings) == []
    assert not settings.root.exists()


def test_ports_are_told_free_or_taken() -> None:
    port = free_port()
    refuse_taken_port("test", "WIKISTREAM_TEST_PORT", port)
    assert listening_process(port) is None
