"""The programs of a home, kept running by supervisord: started in order, watched, restarted when they die, stopped together.

Each program has its own configuration file in ``run/programs``; supervisord reads all of them as one. Beside it is a shell script
with the program's variables and command line: the shell can quote any text, supervisord's format cannot (it expands ``%``, and
``;`` or ``#`` after a space begins a comment). A start compares these files with what it would write: what is the same is left
alone, what has changed is restarted, what is no longer wanted is stopped.

The broker alone can also be lent to whoever needs it for a while (``broker_at_hand``): a file in ``run`` says that it is, and a
lock that all of them share says whether anybody still needs it.
"""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from wikistream_assets.embedded import supervisor
from wikistream_assets.embedded.home import open_home, unusable
from wikistream_assets.embedded.jars import Report, to_stderr
from wikistream_assets.embedded.programs import STOPPED_LAST_TO_FIRST, Program, programs
from wikistream_assets.embedded.source import choose_source, chosen_source
from wikistream_assets.exceptions import BrokerError, SetupError, WikistreamError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.machine.causes import advice_for, cause_of
from wikistream_assets.machine.limits import OPEN_FILES, ensure_open_files
from wikistream_assets.machine.locks import alone, exclusive, shared
from wikistream_assets.machine.ports import refuse_taken_port
from wikistream_assets.settings import Settings

BROKER: Final = "broker"

_START_SECONDS: Final = 90.0
_ANSWER_SECONDS: Final = 3.0
_RESTART_SECONDS: Final = 30.0
_GLANCE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.1
_ATTEMPTS: Final = 3
_RETRIES: Final = 1_000
"""Attempts to start a program, 1, 2, 3 .. s apart: enough to outlast days without a broker."""

_ALIVE: Final = ("STARTING", "RUNNING", "BACKOFF")


@dataclass(frozen=True)
class ServiceStatus:
    """State of a program.

    Attributes:
        state: RUNNING, DONE (a capture is read to its end), or why not: STOPPED, STARTING, BACKOFF (it ended and is started
            again in a moment), EXITED, FATAL (given up), SILENT (it runs but does not answer), ORPHANED (its supervisord is
            gone).
        pid: its process; None if there is none.
        uptime_seconds: since when that runs; None if there is none or nobody knows.
        port: the loopback port it listens on; None if it has none.
    """

    name: str
    state: str
    pid: int | None
    uptime_seconds: int | None
    port: int | None
    detail: str

    @property
    def well(self) -> bool:
        """It does what it should."""
        return self.state in ("RUNNING", "DONE")


def up(settings: Settings, source: str | None = None, report: Report | None = None) -> None:
    """Start what is not running, wait until it works, and bring the topics into shape; running twice changes nothing.

    A program whose settings have changed since its start is restarted with the new ones; all are, if a secret has changed.

    Args:
        settings: the home and its ports.
        source: what the pipeline reads: synthetic, live, or the path of a capture. None: the broker alone; the rest of the
            pipeline is left as it is.
        report: takes a line of progress; the default writes to stderr.

    Raises:
        BrokerError: a port is taken, or the broker does not come up.
        SetupError: Java, the jars, the limit of open files, supervisord or a program are not as needed.
        LakeError: the home cannot be used.

        Where nothing had run before, or everything is started anew, what was started is stopped again then.
    """
    tell = report or to_stderr
    ensure_open_files()
    root = open_home(settings)
    with exclusive(root / "run" / "services.lock"):
        _lent(settings).unlink(missing_ok=True)
        try:
            chosen = choose_source(settings, source) if source else None
            for remark in chosen.source.remarks if chosen else ():
                tell(remark)
            rows = programs(settings, chosen, tell)
            _Start(settings, rows, tell).run(whole=source is not None)
        except OSError as error:
            raise unusable(root, error) from None


def down(settings: Settings) -> list[str]:
    """Stop every program of the home, also those whose supervisord was killed; return the names of what was stopped."""
    if not settings.root.is_dir():
        return []
    with exclusive(settings.root / "run" / "services.lock"):
        _lent(settings).unlink(missing_ok=True)
        return supervisor.stop(settings)


@contextmanager
def broker_at_hand(settings: Settings, report: Report | None = None) -> Iterator[bool]:
    """Have the broker run within the block: the pipeline's if that is up, else one that is lent.

    Whoever finds none starts it, and the last one to leave such a block stops it. If that one is killed, ``take_back_broker``
    does at the next occasion; 'make up' meanwhile makes it the pipeline's.

    Yields:
        Whether it was started for this block.

    Raises:
        BrokerError, SetupError, LakeError: as in ``up``.
    """
    root = open_home(settings)
    try:
        with shared(_users(settings)):
            with exclusive(root / "run" / "services.lock"):
                started = _lend(settings, report or to_stderr)
            yield started
    finally:
        take_back_broker(settings)


def take_back_broker(settings: Settings) -> bool:
    """Stop a broker that was lent and that nobody needs any more; tell whether there was one."""
    if not _lent(settings).exists():
        return False
    with exclusive(settings.root / "run" / "services.lock"), alone(_users(settings)) as unused:
        if not unused or not _lent(settings).exists():
            return False
        supervisor.stop(settings)
        _lent(settings).unlink()
        return True


def broker_is_lent(settings: Settings) -> bool:
    """Tell whether the broker, if it runs, does so only for those who need it for a while."""
    return _lent(settings).exists()


def _lend(settings: Settings, tell: Report) -> bool:
    broker = Broker(f"127.0.0.1:{settings.kafka_port}")
    if _alive(settings):
        with suppress(BrokerError):  # who then asks it gets the error
            broker.wait_ready(_RESTART_SECONDS)  # what has died is started again by supervisord
        return False
    with suppress(BrokerError):
        broker.refuse_absent()
        broker.wait_ready(_GLANCE_SECONDS)
        return False  # somebody else sees to it
    _lent(settings).touch()
    try:
        _Start(settings, programs(settings, None, tell), tell).run(whole=False)
    except OSError as error:
        raise unusable(settings.root, error) from None
    return True


def _lent(settings: Settings) -> Path:
    return settings.root / "run" / "broker.lent"


def _users(settings: Settings) -> Path:
    return settings.root / "run" / "broker.users.lock"


def refuse_another_version(settings: Settings) -> None:
    """Refuse to change a lake beside a pipeline of another version: its leases may have other names, so it would not wait.

    Raises:
        SetupError: such a pipeline runs.
    """
    ours = set(STOPPED_LAST_TO_FIRST) - {"broker"}  # which is Kafka's, whatever our version
    running = [each for each in supervisor.marked_processes(settings.root) if supervisor.program_name(each) in ours]
    if any(supervisor.version_of(process) != version("wikistream") for process in running):
        raise SetupError("the pipeline that runs here is of another version: 'make up' restarts it, then try again")


def status(settings: Settings) -> list[ServiceStatus]:
    """Return the state of each program of this home: the broker, and the pipeline if it was ever started."""
    rows = programs(settings, chosen_source(settings))
    infos = supervisor.process_infos(settings)
    if infos is not None:
        return [_supervised(program, infos.get(program.name)) for program in rows]
    left = {supervisor.program_name(process): process.pid for process in supervisor.marked_processes(settings.root)}
    return [_unsupervised(program, left.get(program.name)) for program in rows]


def capture_is_read(settings: Settings) -> bool:
    """Tell whether the pipeline reads a capture and has come to its end.

    Raises:
        SetupError: supervisord does not answer.
    """
    infos = supervisor.process_infos(settings) or {}
    rows = programs(settings, chosen_source(settings))
    return any(_is_done(program, infos[program.name]) for program in rows if program.name in infos)


def broker_runs(settings: Settings) -> bool:
    """Tell whether the broker runs and answers."""
    return any(service.name == BROKER and service.state == "RUNNING" for service in status(settings))


def _supervised(program: Program, info: Mapping[str, Any] | None) -> ServiceStatus:
    if info is None or info["statename"] == "STOPPED":
        return ServiceStatus(program.name, "STOPPED", None, None, program.port, "'make up' starts it")
    state, detail = info["statename"], info["description"]
    if _is_done(program, info):
        state, detail = "DONE", "read to its end"
    elif state in ("STARTING", "RUNNING") and program.wait_ready is not None:
        try:
            program.wait_ready(_ANSWER_SECONDS if state == "RUNNING" else _GLANCE_SECONDS, lambda: None)
            state = "RUNNING"
        except WikistreamError as error:
            state, detail = ("SILENT", str(error)) if state == "RUNNING" else (state, detail)
    uptime = info["now"] - info["start"] if info["pid"] else None
    return ServiceStatus(program.name, state, info["pid"] or None, uptime, program.port, detail or state.lower())


def _is_done(program: Program, info: Mapping[str, Any]) -> bool:
    return bool(program.may_end and info["statename"] == "EXITED" and info["exitstatus"] == 0)


def _unsupervised(program: Program, pid: int | None) -> ServiceStatus:
    if pid is None:
        return ServiceStatus(program.name, "STOPPED", None, None, program.port, "'make up' starts it")
    detail = "its supervisord is gone: 'make up' or 'make down' mends it"
    return ServiceStatus(program.name, "ORPHANED", pid, None, program.port, detail)


class _Start:
    """One call of ``up``."""

    def __init__(self, settings: Settings, rows: Sequence[Program], report: Report) -> None:
        self._settings = settings
        self._rows = rows
        self._report = report
        self._folder = settings.root / "run" / "programs"
        self._whole_conf = settings.root / "run" / "supervisord.conf"
        self._failures: dict[str, set[int]] = {}

    def run(self, *, whole: bool) -> None:
        """Bring the rows up; if they are the ``whole`` pipeline, end what else runs."""
        infos = supervisor.process_infos(self._settings)
        if whole and infos is not None and supervisor.has_other_secrets(self._settings):
            self._report("a secret has changed: restarting everything except an open UI")
            infos = None
        anew = infos is None
        if anew:
            supervisor.stop(self._settings)  # leftovers of a killed supervisord hold ports, too
        stale = self._stale(infos or {}, whole)
        for name in stale & set(infos or {}):
            _end(self._settings, name)
        try:
            self._refuse_taken_ports()
            self._write(stale)
            if anew:
                supervisor.start(self._settings, self._whole_conf)
            self._load()
            self._start_rows()
        except BaseException:  # also when it is told to end meanwhile
            if anew:
                supervisor.stop(self._settings)
            raise

    def _stale(self, infos: Mapping[str, Any], whole: bool) -> set[str]:
        """Programs that supervisord has and that must end: not wanted, or not started from the present configuration."""
        texts = {program.name: self._texts(program) for program in self._rows}
        changed = {name for name, files in texts.items() if any(_read(path) != text for path, text in files.items())}
        return changed | (set(infos) - set(texts) if whole else set())

    def _texts(self, program: Program) -> dict[Path, str]:
        return {
            self._conf(program.name): _section(program),
            self._script(program.name): _script(program),
            **program.files,
        }

    def _conf(self, name: str) -> Path:
        return self._folder / f"{name}.conf"

    def _script(self, name: str) -> Path:
        return self._folder / f"{name}.sh"

    def _refuse_taken_ports(self) -> None:
        running = _alive(self._settings)
        for program in self._rows:
            for setting, port in program.ports.items() if program.name not in running else ():
                refuse_taken_port(program.name, setting, port)

    def _write(self, stale: set[str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in stale - {program.name for program in self._rows}:
            self._conf(name).unlink(missing_ok=True)
            self._script(name).unlink(missing_ok=True)
        for program in self._rows:
            for path, text in self._texts(program).items():
                if _read(path) != text:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8", errors="surrogateescape")
        sections = [path.read_text(encoding="utf-8") for path in sorted(self._folder.glob("*.conf"))]
        self._whole_conf.write_text(_supervisord_section(self._settings) + "".join(sections), encoding="utf-8")

    def _load(self) -> None:
        """Have supervisord know every configuration file, and none that is gone."""
        ((added, changed, removed),) = supervisor.call(self._settings, "reloadConfig")
        for name in (*changed, *removed):
            _end(self._settings, name)
            supervisor.call(self._settings, "removeProcessGroup", name)
        for name in (*added, *changed):
            supervisor.call(self._settings, "addProcessGroup", name)

    def _start_rows(self) -> None:
        by_name = {program.name: program for program in self._rows}
        ready: set[str] = set()
        for program in self._rows:
            for name in program.needs:
                if name not in ready:
                    self._wait(by_name[name])
                    ready.add(name)
            self._start(program)
        for program in self._rows:
            if program.name not in ready:
                self._wait(program)

    def _start(self, program: Program) -> None:
        if program.name in _alive(self._settings):
            return
        program.prepare()
        _log(self._settings, program).unlink(missing_ok=True)
        self._report(f"starting {program.name}" + (f" on 127.0.0.1:{program.port}" if program.port else ""))
        supervisor.call(self._settings, "startProcess", program.name, False)

    def _wait(self, program: Program) -> None:
        """Return once the program works.

        Raises:
            BrokerError, SetupError: it ends at its start again and again, or does not answer.
        """
        if program.wait_ready is not None:
            program.wait_ready(_START_SECONDS, lambda: self._check(program))
        else:
            while not self._check(program):
                time.sleep(_POLL_SECONDS)
        if program.name == BROKER:
            for change in Broker(f"127.0.0.1:{self._settings.kafka_port}").ensure_topics(self._settings):
                self._report(change)

    def _check(self, program: Program) -> bool:
        """Tell whether it has settled, or has done its work already; raises as ``_wait``."""
        info = (supervisor.process_infos(self._settings) or {}).get(program.name)
        if info is None:
            raise SetupError("supervisord has ended: see logs/supervisord.log in WIKISTREAM_HOME, then run 'make up'")
        if _is_done(program, info):
            return True
        failures = self._failures.setdefault(program.name, set())
        if info["statename"] == "BACKOFF":
            failures.add(info["start"])
        if len(failures) >= _ATTEMPTS or info["statename"] not in _ALIVE:
            raise (BrokerError if program.name == BROKER else SetupError)(_ended(self._settings, program))
        return bool(info["statename"] == "RUNNING")


def _section(program: Program) -> str:
    """The program's part of supervisord's configuration."""
    lines = [
        f"[program:{program.name}]",
        f"command=/bin/sh run/programs/{program.name}.sh",  # relative to the home, where supervisord is started
        "autostart=false",  # what needs another program is started after it
        f"autorestart={'unexpected' if program.may_end else 'true'}",
        "exitcodes=0",
        f"startsecs={program.settled_seconds}",
        f"startretries={_RETRIES}",
        f"stopwaitsecs={supervisor.STOP_SECONDS}",
        f"priority={STOPPED_LAST_TO_FIRST.index(program.name)}",
        "killasgroup=true",  # SIGTERM is for the program alone: what it finishes, its children must live to finish
        "redirect_stderr=true",
        f"stdout_logfile=logs/{program.name}.out",
        "stdout_logfile_maxbytes=1MB",
        "stdout_logfile_backups=1",
    ]
    return "\n".join(lines) + "\n"


def _script(program: Program) -> str:
    """The shell script that becomes the program."""
    variables = [f"export {name}={shlex.quote(value)}" for name, value in program.environment.items()]
    return "\n".join(["# written by WikiStream at each start", *variables, f"exec {shlex.join(program.command())}", ""])


def _supervisord_section(settings: Settings) -> str:
    lines = [
        "[unix_http_server]",
        f"file={_socket(settings)}",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisord]",
        f"minfds={OPEN_FILES}",
        "pidfile=run/supervisord.pid",
        "logfile=logs/supervisord.log",
        "logfile_maxbytes=1MB",
        "logfile_backups=1",
    ]
    return "\n".join(lines) + "\n"


def _socket(settings: Settings) -> Path:
    path = supervisor.socket_path(settings)
    return path.relative_to(settings.root) if path.is_relative_to(settings.root) else path


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else None


def _alive(settings: Settings) -> set[str]:
    """Programs that run, or that supervisord is about to start again."""
    infos = supervisor.process_infos(settings) or {}
    return {name for name, info in infos.items() if info["statename"] in _ALIVE}


def _end(settings: Settings, name: str) -> None:
    """Stop one program and wait until it is gone."""
    if name in _alive(settings):
        supervisor.call(settings, "stopProcess", name)


def _log(settings: Settings, program: Program) -> Path:
    return settings.root / "logs" / f"{program.name}.out"


def _ended(settings: Settings, program: Program) -> str:
    log = _log(settings, program)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    cause = cause_of(text)
    advice = advice_for(cause) or "correct the cause"
    return f"the {program.name} ends at its start ({cause}): {advice}, then run 'make up'; more is in {log}"
