"""Alerts of a pipeline that runs by itself: each cause is brought about, its alert fires, and clears when all is well again.

The tests share one pipeline and go on one after the other; what an alert says and when it is sent is tested in ``alerts`` and
``defs/test_alert_sensors.py``.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import psutil
import pytest

from producer.eventstreams.capture import render
from producer.eventstreams.generator import Generator
from producer.launch import read_cursor
from wikistream_assets.alerts import AlertKind, Alerts
from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.exceptions import WriterBusyError
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets_tests.alerts.servers import Inbox, http_server
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import free_port, wait_until
from wikistream_assets_tests.e2e.unknown_type import unknown_type
from wikistream_assets_tests.kafka_records import judged, produce
from wikistream_assets_tests.producer.samples import line
from wikistream_assets_tests.running import (
    SECONDS,
    cycles,
    kill_family,
    pid_of,
    wait_for_success,
    wait_for_work,
    wait_until_read,
)

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(1200)]

_PORTS = ("kafka_port", "kafka_controller_port", "source_port", "code_port", "dagster_port", "stream_metrics_port")


@dataclass(frozen=True)
class Running:
    """The pipeline, and Slack's side of it."""

    settings: Settings
    slack: Inbox


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Up on the synthetic source, loop included, with limits that are soon reached; stopped at the end whatever happens."""
    settings = Settings(
        home=tmp_path_factory.mktemp("alerts") / "home",
        **{name: free_port() for name in _PORTS},
        synthetic_events_per_second=20.0,
        spark_memory_mb=1024,
        allowed_lateness_hours=48,
        cycle_blocked_seconds=5,
        step_max_seconds=240,
        stream_restart_tries=1,
        source_silent_seconds=20,
        alert_lag_records=300,
        alert_dlq_per_minute=20,
        alert_latency_seconds=10.0,
        alert_producer_cpu_seconds=30.0,
    )
    with http_server() as slack:
        try:
            secret = {"WIKISTREAM_ALERT_SLACK_WEBHOOK_URL": slack.url}
            started = wikistream("up", settings=settings, WIKISTREAM_ALERT_ROUTES='{"*": ["log", "slack"]}', **secret)
            assert started.returncode == 0, started.stderr
            with dagster_instance(settings) as instance:
                wait_until(lambda: cycles(instance, dg.DagsterRunStatus.SUCCESS), SECONDS)
            yield Running(settings, slack)
        finally:
            services.down(settings)


@pytest.fixture
def home(running: Running) -> Settings:
    return running.settings


@pytest.fixture
def instance(home: Settings) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(home) as opened:
        yield opened


Key = tuple[str, str]
"""Kind and subject of an alert."""

STREAM_RESTARTED: Key = ("stream_restarted", "bronze_stream")
STREAM_GIVEN_UP: Key = ("stream_given_up", "bronze_stream")
SOURCE_SILENT: Key = ("source_silent", "bronze_stream")
LAG: Key = ("lag", "raw-events")
STALE: Key = ("freshness", "bronze.raw_events")
LATENCY: Key = ("latency", "bronze.raw_events")
DLQ_RATE: Key = ("dlq_rate", "dlq-events")
GATE_FAILED: Key = ("gate_failed", "bronze.raw_events.event_type_valid")
CHECK_FAILED: Key = ("check_failed", "bronze.raw_events.no_future_timestamps")
PRODUCER_CPU: Key = ("producer_cpu", "producer")
RUN_FAILED: Key = ("run_failed", "cycle")
RUN_TIMEOUT: Key = ("run_timeout", "cycle")


class Told:
    """What the alert log says of some alerts from now on; none of them is open yet."""

    def __init__(self, settings: Settings, *keys: Key) -> None:
        self._path: Path = settings.root / "logs" / "alerts.jsonl"
        self._keys = keys
        alerts = Alerts(settings)
        wait_until(lambda: not any(alerts.is_open(AlertKind(kind), subject) for kind, subject in keys), SECONDS)
        self._before = len(self._lines())

    def _lines(self) -> list[str]:
        return self._path.read_text(encoding="ascii").splitlines() if self._path.exists() else []

    def events(self, key: Key) -> list[str]:
        """``fired`` and ``cleared`` of one alert, in their order."""
        notices = [json.loads(line) for line in self._lines()[self._before :]]
        return [it["event"] for it in notices if (it["kind"], it["subject"]) == key]

    def wait_for(self, event: str) -> None:
        """Return once each of them has had this event."""
        wait_until(lambda: all(event in self.events(key) for key in self._keys), SECONDS)

    def each_once(self) -> None:
        """Wait until each of them is cleared; it was fired once."""
        self.wait_for("cleared")
        assert {key: self.events(key) for key in self._keys} == {key: ["fired", "cleared"] for key in self._keys}


def test_a_stream_that_died(running: Running) -> None:
    told = Told(running.settings, STREAM_RESTARTED)
    kill_family(pid_of(running.settings, "stream"))
    told.wait_for("fired")
    told.each_once()
    wait_until(lambda: sum("stream_restarted" in body for body in running.slack.bodies) == 2)


def test_a_stream_that_restarts_do_not_help(home: Settings) -> None:
    """Another process writes Bronze and does not get on: the stream waits for it, and so does everything behind."""
    told = Told(home, LAG, STALE, STREAM_RESTARTED, STREAM_GIVEN_UP)
    with in_place_of_the_stream(home):
        told.wait_for("fired")
        assert told.events(STREAM_GIVEN_UP) == ["fired"]
    told.each_once()


@contextmanager
def in_place_of_the_stream(settings: Settings) -> Iterator[None]:
    """Kill the stream and hold its lock until the end of the block."""
    kill_family(pid_of(settings, "stream"))
    with ExitStack() as held:

        def taken() -> bool:
            with suppress(WriterBusyError):
                held.enter_context(writer_lock(settings, RAW_EVENTS.identifier))
                return True
            return False

        wait_until(taken)
        yield


def test_a_source_that_falls_silent(home: Settings) -> None:
    told = Told(home, SOURCE_SILENT)
    supervisor.call(home, "stopProcess", "source")
    told.wait_for("fired")
    supervisor.call(home, "startProcess", "source")
    told.each_once()


def test_events_that_come_late(home: Settings) -> None:
    """The stream hangs for longer than an event may take, again and again for five minutes: no batch in between is in time."""
    told = Told(home, LATENCY)
    lake = local_lake(home)
    deadline = time.monotonic() + 2 * SECONDS
    while "fired" not in told.events(LATENCY):
        assert time.monotonic() < deadline
        with hanging(pid_of(home, "stream")):
            before = lake.state(RAW_EVENTS).head()
            time.sleep(1.5 * home.alert_latency_seconds)  # the fault itself
        wait_until(lambda before=before: lake.state(RAW_EVENTS).head() != before)
    told.each_once()


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Stop a process and all under it, and let them go on at the end of the block."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    for member in family:
        member.suspend()
    try:
        yield
    finally:
        for member in family:
            member.resume()


def test_dead_letters_at_a_high_rate(home: Settings) -> None:
    told = Told(home, DLQ_RATE)

    def fired() -> bool:
        produce(home.bootstrap_servers, judged([f"garbage {number}" for number in range(10)]))
        time.sleep(5)
        return "fired" in told.events(DLQ_RATE)

    wait_until(fired, SECONDS)
    told.each_once()


def test_a_producer_that_is_overworked(home: Settings) -> None:
    """In place of the source another server sends events of a wiki that nobody follows, as fast as they are taken."""
    told = Told(home, PRODUCER_CPU)
    cursor = read_cursor(choose_source(home, "synthetic").source, home)
    assert cursor is not None
    assert cursor.position is not None
    # under an id that the producer has passed already, so that it goes on with the source where it was
    frames = render(cursor.position.encode(), line(meta_domain="commons.wikimedia.org").encode()) * 1_000
    supervisor.call(home, "stopProcess", "source")
    with flood(home.source_port, frames):
        told.wait_for("fired")
    supervisor.call(home, "startProcess", "source")
    told.each_once()


@contextmanager
def flood(port: int, frames: bytes) -> Iterator[None]:
    """An event stream that sends the same frames over and over until the end of the block."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with suppress(OSError):  # the reader is gone
                while not over.is_set():
                    self.wfile.write(frames)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_a_closed_gate_and_a_warning(home: Settings) -> None:
    told = Told(home, GATE_FAILED, CHECK_FAILED)
    produce(home.bootstrap_servers, [unknown_type()])
    told.wait_for("fired")
    why = ("--where", "event_type = 'flow!'", "--reason", "test")
    rejected = wikistream("gate", "reject", "bronze.raw_events", "event_type_valid", *why, settings=home)
    assert rejected.returncode == 0, rejected.stderr
    told.each_once()


def test_a_run_that_breaks(home: Settings, instance: dg.DagsterInstance) -> None:
    told = Told(home, RUN_FAILED)
    _, worker = wait_for_work(instance)
    kill_family(worker)
    told.wait_for("fired")
    told.each_once()


def test_a_run_over_its_time_limit(home: Settings, instance: dg.DagsterInstance) -> None:
    told = Told(home, RUN_TIMEOUT)
    _, worker = wait_for_work(instance)
    for process in (psutil.Process(worker), *psutil.Process(worker).children(recursive=True)):
        process.suspend()
    told.wait_for("fired")
    told.each_once()


def test_users_at_high_risk(home: Settings, instance: dg.DagsterInstance) -> None:
    """News, not a state: told once for each user and day, and never cleared."""
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    key = ("high_risk_user", f"{yesterday:%Y-%m-%d}/Sweeping Broom")
    told = Told(home, key)
    history = Generator(seed=11, events=12_000, start=yesterday, hours=20.0)
    produce(home.bootstrap_servers, judged((line.data for line in history.lines()), ingested_at=datetime.now(UTC)))
    told.wait_for("fired")
    wait_until_read(home)
    wait_for_success(instance)
    assert told.events(key) == ["fired"]
