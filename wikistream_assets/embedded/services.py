"""The services of a home, kept running by supervisord: started, watched, restarted when they die, stopped together.

One row in ``programs`` is one service.
"""

import errno
import shlex
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from wikistream_assets.embedded import kafka, supervisor
from wikistream_assets.embedded.home import open_home, unusable
from wikistream_assets.embedded.jars import Report
from wikistream_assets.embedded.locks import exclusive
from wikistream_assets.exceptions import BrokerError, WikistreamError
from wikistream_assets.resources.broker import Broker
from wikistream_assets.settings import Settings

_START_SECONDS: Final = 90.0
_ANSWER_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Program:
    """One supervised service.

    Attributes:
        name: its name in ``status`` and in the logs (``logs/<name>.out``).
        command: makes its command line; may fetch what it needs.
        ports: the loopback ports it listens on, by the setting that changes each; the first is the one shown.
        files: configuration files and their text.
        prepare: what must be done before its first start; does nothing when done before.
        wait_ready: returns once it answers, within the seconds given; calls its second argument while waiting.
    """

    name: str
    command: Callable[[], list[str]]
    ports: Mapping[str, int]
    files: Mapping[Path, str]
    prepare: Callable[[], None]
    wait_ready: Callable[[float, Callable[[], None]], None]


@dataclass(frozen=True)
class ServiceStatus:
    """State of a service: RUNNING, or why not (STOPPED, STARTING, BACKOFF, FATAL, SILENT, ORPHANED)."""

    name: str
    state: str
    pid: int | None
    port: int
    detail: str


def programs(settings: Settings, report: Report | None = None) -> tuple[Program, ...]:
    """Return the services of a home, in the order of starting."""
    broker = Broker(f"127.0.0.1:{settings.kafka_port}")
    return (
        Program(
            name="broker",
            command=lambda: kafka.command(settings, report),
            ports={
                "WIKISTREAM_KAFKA_PORT": settings.kafka_port,
                "WIKISTREAM_KAFKA_CONTROLLER_PORT": settings.kafka_controller_port,
            },
            files=kafka.files(settings),
            prepare=lambda: kafka.format_storage(settings, report),
            wait_ready=broker.wait_ready,
        ),
    )


def up(settings: Settings, report: Report | None = None) -> None:
    """Start what is not running, wait until it answers, and bring the topics into shape; running twice changes nothing.

    If settings changed since the last start, the services are restarted with the new ones.

    Args:
        settings: the home and its ports.
        report: takes a line of progress; the default writes to stderr.

    Raises:
        BrokerError: a port is taken, or the broker does not come up. Nothing is left running then.
        SetupError: Java, the jars or supervisord are not as needed.
        LakeError: the home cannot be used.
    """
    tell = report or _to_stderr
    root = open_home(settings)
    with exclusive(root / "run" / "services.lock"):
        rows = programs(settings, tell)
        try:
            texts = _configuration(settings, rows)
            if not _is_current(settings, texts):
                supervisor.stop(settings)
                _start(settings, rows, texts, tell)
            _wait_for_all(settings, rows)
        except OSError as error:
            raise unusable(root, error) from None
        except WikistreamError:
            supervisor.stop(settings)
            raise
        for change in Broker(f"127.0.0.1:{settings.kafka_port}").ensure_topics(settings):
            tell(change)


def down(settings: Settings) -> list[str]:
    """Stop every service of the home, also those whose supervisord was killed; return the names of what was stopped."""
    if not settings.root.is_dir():
        return []
    with exclusive(settings.root / "run" / "services.lock"):
        return supervisor.stop(settings)


def status(settings: Settings) -> list[ServiceStatus]:
    """Return the state of each service; one that runs but does not answer is SILENT."""
    infos = supervisor.process_infos(settings)
    if infos is not None:
        return [_supervised(program, infos.get(program.name)) for program in programs(settings)]
    left = {supervisor.program_name(process): process.pid for process in supervisor.marked_processes(settings.root)}
    return [_unsupervised(program, left.get(program.name)) for program in programs(settings)]


def _supervised(program: Program, info: Mapping[str, Any] | None) -> ServiceStatus:
    port = next(iter(program.ports.values()))
    if info is None:
        return ServiceStatus(program.name, "STOPPED", None, port, "not started yet: 'make up' starts it")
    state, detail = info["statename"], info["description"]
    if state == "RUNNING":
        try:
            program.wait_ready(_ANSWER_SECONDS, lambda: None)
        except WikistreamError as error:
            state, detail = "SILENT", str(error)
    return ServiceStatus(program.name, state, info["pid"] or None, port, detail)


def _unsupervised(program: Program, pid: int | None) -> ServiceStatus:
    port = next(iter(program.ports.values()))
    if pid is None:
        return ServiceStatus(program.name, "STOPPED", None, port, "'make up' starts it")
    return ServiceStatus(
        program.name, "ORPHANED", pid, port, "its supervisord is gone: 'make up' or 'make down' mends it"
    )


# --- supervisord ------------------------------------------------------------------------------------------------------


def _configuration(settings: Settings, rows: tuple[Program, ...]) -> dict[Path, str]:
    """Return every file that the services are started from, with its text."""
    # Paths are relative to the home, where supervisord is started: it expands some of them twice, and a '%' would not survive.
    sections = [
        "[unix_http_server]",
        f"file={_escaped(supervisor.socket_path(settings))}",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisord]",
        "pidfile=run/supervisord.pid",
        "logfile=logs/supervisord.log",
        "logfile_maxbytes=1MB",
        "logfile_backups=1",
    ]
    for program in rows:
        sections += [
            f"[program:{program.name}]",
            f"command={_escaped(shlex.join(program.command()))}",
            "autorestart=true",
            "startsecs=1",
            f"stopwaitsecs={supervisor.STOP_SECONDS}",
            "stopasgroup=true",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile=logs/{program.name}.out",
            "stdout_logfile_maxbytes=1MB",
            "stdout_logfile_backups=1",
        ]
    texts = {_conf(settings): "\n".join(sections) + "\n"}
    for program in rows:
        texts.update(program.files)
    return texts


def _conf(settings: Settings) -> Path:
    return settings.root / "run" / "supervisord.conf"


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")


def _log(settings: Settings, program: Program) -> Path:
    return settings.root / "logs" / f"{program.name}.out"


def _is_current(settings: Settings, texts: Mapping[Path, str]) -> bool:
    """Tell whether supervisord runs, everything under it is started, and it was started from these very files."""
    infos = supervisor.process_infos(settings)
    if not infos or any(info["statename"] not in ("RUNNING", "STARTING") for info in infos.values()):
        return False
    return all(path.is_file() and path.read_text(encoding="utf-8") == text for path, text in texts.items())


def _start(settings: Settings, rows: tuple[Program, ...], texts: Mapping[Path, str], report: Report) -> None:
    for program in rows:
        for setting, port in program.ports.items():
            refuse_taken_port(program.name, setting, port)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    for program in rows:
        program.prepare()
        _log(settings, program).unlink(missing_ok=True)
        report(f"starting {program.name} on 127.0.0.1:{next(iter(program.ports.values()))}")
    supervisor.start(settings, _conf(settings))


def _wait_for_all(settings: Settings, rows: tuple[Program, ...]) -> None:
    for program in rows:

        def still_alive(program: Program = program) -> None:
            info = (supervisor.process_infos(settings) or {}).get(program.name)
            if info is not None and info["statename"] not in ("STARTING", "RUNNING", "BACKOFF"):
                raise BrokerError(_ended(settings, program))

        program.wait_ready(_START_SECONDS, still_alive)


def _ended(settings: Settings, program: Program) -> str:
    log = _log(settings, program)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip() and not line[0].isspace()]  # no insides of stack traces
    errors = [line for line in lines if "Exception: " in line or "Error: " in line]
    reason = (errors or lines or ["no output"])[-1]
    return (
        f"the {program.name} ends at its start ({reason.strip()}): see {log.parent}, mend the cause and run 'make up'"
    )


# --- processes and ports ----------------------------------------------------------------------------------------------


def refuse_taken_port(name: str, setting: str, port: int) -> None:
    """Return if the loopback port is free.

    Args:
        name: who needs it.
        setting: the variable that changes it.
        port: the port.

    Raises:
        BrokerError: it is taken; the text names who listens there, as far as the operating system tells.
    """
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java does: a closing connection is no hindrance
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BrokerError(
                    f"port {port} cannot be used ({error.strerror}): set {setting} to another port"
                ) from None
            listener = listening_process(port)
            by = f" by process {listener.pid} ({listener.name()})" if listener else ""
            raise BrokerError(
                f"port {port} for the {name} is in use{by}: stop that, or set {setting} to another port"
            ) from None


def listening_process(port: int) -> psutil.Process | None:
    """Return who listens on a TCP port, None if nobody does or the operating system does not tell."""
    try:
        connections = psutil.net_connections(kind="tcp")
        pid = next(
            (c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port and c.pid), None
        )
        return psutil.Process(pid) if pid else None
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return None


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
