"""The programs of a home: one row each, with everything supervisord and a starter must know of it.

Belongs here: what is run, with which arguments, environment and files, and when it is ready. Does not belong here: starting and
stopping (``services``), supervisord's mechanics (``supervisor``).
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from producer.launch import producer_command
from producer.python import module_command
from producer.settings import ENV_PREFIX, ProducerSettings
from wikistream_assets.embedded import kafka, supervisor
from wikistream_assets.embedded.dagster_home import prepare_dagster_home
from wikistream_assets.embedded.home import is_locked
from wikistream_assets.embedded.jars import Report
from wikistream_assets.embedded.source import PipelineSource
from wikistream_assets.exceptions import SetupError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.machine.ports import wait_for_listener
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS

LOCATION: Final = "wikistream"
"""Name of the Dagster code location, as in ``workspace.yaml``."""

STOPPED_LAST_TO_FIRST: Final = ("broker", "source", "producer", "stream", "code", "worker", "daemon", "metrics")
"""From the one that is stopped last to the first: who watches others must be gone before they are, or would start them again."""

_POLL_SECONDS: Final = 0.1
_STREAM_PATH: Final = "/v2/stream/recentchange"

WaitReady = Callable[[float, Callable[[], object]], None]


@dataclass(frozen=True)
class Program:
    """One supervised program.

    Attributes:
        name: its name in ``status`` and in the logs (``logs/<name>.out``).
        command: makes its command line; may fetch what it needs.
        wait_ready: returns once it does its work, within the seconds given; calls its second argument while waiting. None:
            there is nothing to ask, it works as long as it runs.
        settled_seconds: who ends sooner has failed to start; the next attempts come after 1, 2, 3 .. s.
        ports: the loopback ports it listens on, by the setting that changes each; the first is the one shown.
        environment: variables that it gets; no secrets, they are written to a file.
        files: configuration files and their text.
        needs: programs that must be ready before it is started.
        may_end: exit code 0 means that its work is done; else it is started again however it ends.
        prepare: what must be done before its first start; does nothing when done before.
    """

    name: str
    command: Callable[[], list[str]]
    wait_ready: WaitReady | None
    settled_seconds: int
    ports: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    may_end: bool = False
    prepare: Callable[[], object] = lambda: None

    @property
    def port(self) -> int | None:
        """The port to show."""
        return next(iter(self.ports.values()), None)


def programs(settings: Settings, chosen: PipelineSource | None, report: Report | None = None) -> tuple[Program, ...]:
    """The programs of a home, in the order of starting; the broker alone if it has no source."""
    broker = _broker(settings, report)
    if chosen is None:
        return (broker,)
    source = () if chosen.source.url else (_source(settings, chosen),)
    ours = (
        *source,
        _producer(settings, chosen),
        _stream(settings),
        _code(settings),
        _worker(settings),
        _daemon(settings),
        *((_metrics(settings),) if settings.metrics_port else ()),
    )
    mark = {supervisor.VERSION_MARK: version("wikistream")}
    return (broker, *(replace(program, environment={**program.environment, **mark}) for program in ours))


def ui_command(settings: Settings) -> list[str]:
    """The command line of the Dagster UI, which runs in front and not under supervisord."""
    given = ("--port", str(settings.dagster_port), "--workspace", str(_workspace(settings)))
    return module_command("wikistream_assets.instance.ui_server", *given)


def ui_environment(settings: Settings) -> dict[str, str]:
    """Its environment, marked so that it is stopped with the rest of the home."""
    return {**supervisor.inherited(settings), **_dagster_variables(settings), supervisor.NAME_MARK: "ui"}


def _workspace(settings: Settings) -> Path:
    return settings.dagster_home / "workspace.yaml"


def _broker(settings: Settings, report: Report | None) -> Program:
    return Program(
        name="broker",
        command=lambda: kafka.command(settings, report),
        wait_ready=Broker(f"127.0.0.1:{settings.kafka_port}").wait_ready,
        settled_seconds=5,
        ports={
            "WIKISTREAM_KAFKA_PORT": settings.kafka_port,
            "WIKISTREAM_KAFKA_CONTROLLER_PORT": settings.kafka_controller_port,
        },
        files=kafka.files(settings),
        prepare=lambda: kafka.format_storage(settings, report),
    )


def _source(settings: Settings, chosen: PipelineSource) -> Program:
    speed = () if chosen.endless else ("--speed", "1")  # a capture as it was recorded
    serve = (*chosen.source.serve, *speed, "--port", str(settings.source_port))
    return Program(
        name="source",
        command=lambda: module_command("producer.eventstreams", *serve),
        wait_ready=_answers(settings.source_port),
        settled_seconds=2,
        ports={"WIKISTREAM_SOURCE_PORT": settings.source_port},
    )


def _producer(settings: Settings, chosen: PipelineSource) -> Program:
    url = chosen.source.url or f"http://127.0.0.1:{settings.source_port}{_STREAM_PATH}"
    return Program(
        name="producer",
        command=lambda: producer_command(chosen.source, url),
        wait_ready=None,
        # a short capture is read within seconds, and who has read it has not failed to start
        settled_seconds=5 if chosen.endless else 1,
        environment=_variables(settings, ProducerSettings),
        needs=("broker",) if chosen.source.url else ("broker", "source"),
        may_end=not chosen.endless,
    )


def _stream(settings: Settings) -> Program:
    return Program(
        name="stream",
        command=lambda: module_command("wikistream_assets.engine.ingest", EDITS.name),
        wait_ready=lambda seconds, still_alive: _wait_for_writer(settings, seconds, still_alive),
        settled_seconds=20,
        environment=_variables(settings, Settings),
        needs=("broker",),
    )


def _code(settings: Settings) -> Program:
    port = str(settings.code_port)
    return Program(
        name="code",
        command=lambda: module_command("wikistream_assets.instance.code_server", "--port", port),
        wait_ready=_answers(settings.code_port),
        settled_seconds=10,
        ports={"WIKISTREAM_CODE_PORT": settings.code_port},
        environment=_dagster_variables(settings),
        needs=("broker",),
        prepare=lambda: prepare_dagster_home(settings),
    )


def _worker(settings: Settings) -> Program:
    return Program(
        name="worker",
        command=lambda: module_command("wikistream_assets.instance.run_worker"),
        wait_ready=None,  # who launches a run before it is ready starts a process of its own
        settled_seconds=20,
        environment=_dagster_variables(settings),
        needs=("code",),
    )


def _daemon(settings: Settings) -> Program:
    return Program(
        name="daemon",
        command=lambda: module_command("dagster._daemon", "run", "-w", str(_workspace(settings))),
        wait_ready=None,
        settled_seconds=10,
        environment=_dagster_variables(settings),
        files={_workspace(settings): _WORKSPACE.format(port=settings.code_port, location=LOCATION)},
        needs=("code",),
    )


def _metrics(settings: Settings) -> Program:
    return Program(
        name="metrics",
        command=lambda: module_command("wikistream_assets", "metrics", "serve"),
        wait_ready=_answers(settings.metrics_port),
        settled_seconds=10,
        ports={"WIKISTREAM_METRICS_PORT": settings.metrics_port},
        environment=_dagster_variables(settings),
        needs=("code",),
    )


def _answers(port: int) -> WaitReady:
    return lambda seconds, still_alive: wait_for_listener(port, seconds, still_alive)


def _wait_for_writer(settings: Settings, seconds: float, still_alive: Callable[[], object]) -> None:
    """The stream is ready when it owns Bronze; while another process does, it waits for its turn."""
    deadline = time.monotonic() + seconds
    while not is_locked(settings, EDITS.raw.identifier):
        if time.monotonic() > deadline:
            raise SetupError(f"nobody writes {EDITS.raw.identifier} after {seconds:.0f} s: see logs/stream.out")
        still_alive()
        time.sleep(_POLL_SECONDS)


def _variables(settings: Settings, known: type[ProducerSettings]) -> dict[str, str]:
    """The settings that were given or that the profile sets, as a child process reads them; secrets it inherits."""
    values = settings.model_dump(mode="json", include=set(known.model_fields), exclude_unset=True)
    plain = {name: value for name, value in values.items() if not isinstance(getattr(settings, name), SecretStr)}
    if "home" in known.model_fields:
        plain["home"] = str(settings.root)
    return {f"{ENV_PREFIX}{name.upper()}": _text(value) for name, value in sorted(plain.items())}


def _dagster_variables(settings: Settings) -> dict[str, str]:
    return {"DAGSTER_HOME": str(settings.dagster_home), **_variables(settings, Settings)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_WORKSPACE: Final = """\
# written by WikiStream at each start
load_from:
  - grpc_server:
      host: 127.0.0.1
      port: {port}
      location_name: {location}
"""
