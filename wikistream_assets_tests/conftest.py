"""Fixtures that every test may use: a home of its own with free ports, and one broker for the whole suite."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from wikistream_assets.embedded import services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.machine.ports import free_port
from wikistream_assets.settings import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault cases; here because pytest reads options from the outermost conftest only."""
    parser.addoption("--full", action="store_true", help="faults: kill as often as docs/RELIABILITY.md says")
    parser.addoption("--resume", action="store_true", help="faults: leave out what has passed on this commit")


def pytest_configure(config: pytest.Config) -> None:
    """Let pass what no test can mend: py4j leaves it to the garbage collector to close its sockets to the JVM."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


SettingsFactory = Callable[..., Settings]
_Found = TypeVar("_Found")


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the ``WIKISTREAM_*`` variables that make a child process load the same settings."""
    fields = settings.model_dump(include=settings.model_fields_set)  # routes as JSON, secrets as stars
    return {f"WIKISTREAM_{name.upper()}": str(value) for name, value in fields.items()}


def wait_until(condition: Callable[[], _Found], seconds: float = 120.0) -> _Found:
    """Return what ``condition`` says once it holds; fail if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s"
        threading.Event().wait(0.1)
    return found


@pytest.fixture
def settings_factory(tmp_path: Path) -> SettingsFactory:
    """Return a maker of settings: a new home at each call (``home=`` overrides), free ports, any field by keyword."""
    made = 0

    def make(**fields: object) -> Settings:
        nonlocal made
        made += 1
        defaults: dict[str, object] = {
            "home": tmp_path / f"home{made}",
            "kafka_port": free_port(),
            "kafka_controller_port": free_port(),
            "source_port": free_port(),
            "code_port": free_port(),
            "dagster_port": free_port(),
        }
        return Settings(**{**defaults, **fields})

    return make


@pytest.fixture
def settings(settings_factory: SettingsFactory) -> Settings:
    """Return the settings of a home of this test's own, with free ports; nothing is created yet."""
    return settings_factory()


@pytest.fixture
def hang_ups_count() -> Iterator[None]:
    """Have children end by SIGHUP, also in a run that ``nohup`` started: they would ignore it as it does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def broker_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Return the settings of the suite's one broker: a real Kafka, started at its first use, stopped at the end."""
    settings = Settings(
        # a name that .properties, supervisord's format, a shell or a URL would take for something else
        home=tmp_path_factory.mktemp("broker") / "a b, ü #c ;d 100% 'x' $y",
        kafka_port=free_port(),
        kafka_controller_port=free_port(),
    )
    try:
        services.up(settings)
        yield settings
    finally:
        services.down(settings)


@pytest.fixture(scope="session")
def broker(broker_settings: Settings) -> Broker:
    """Return the suite's broker; its topics outlive a test, so use ``fresh_topics`` or names of the test's own."""
    return Broker(broker_settings.bootstrap_servers)


def empty_topics(broker: Broker, settings: Settings) -> None:
    """Leave WikiStream's topics on the broker, empty, and no others."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    present = list(broker.list_topics())
    if present:
        for future in admin.delete_topics(present, operation_timeout=30).values():
            future.result(timeout=30)
        wait_until(lambda: not broker.list_topics())  # the broker's answer runs ahead of its metadata
    broker.ensure_topics(settings)


@pytest.fixture
def fresh_topics(broker: Broker, broker_settings: Settings) -> Broker:
    """Return the suite's broker with WikiStream's topics empty and all others gone."""
    empty_topics(broker, broker_settings)
    return broker


@pytest.fixture
def lake(settings: Settings) -> Lakehouse:
    """Return the lake of this test's ``settings``: a real catalog with every table, empty."""
    open_home(settings)
    return local_lake(settings)


@pytest.fixture
def spark(settings: Settings, lake: Lakehouse) -> SparkSession:
    """Return a session on this test's lake. The JVM starts once for the whole suite; a session on it costs milliseconds."""
    return local_session(settings)


@dataclass(frozen=True)
class Said:
    """What a command of this process said, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a runner of commands in this process: each of its own would take seconds to import what this one has."""

    def run(settings: Settings, *arguments: str) -> Said:
        from wikistream_assets.cli.main import main

        for name, value in child_environment(settings).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["wikistream", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run
