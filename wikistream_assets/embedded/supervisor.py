"""One supervisord for a home, reached over a unix socket: what it is told, what it says, and the processes it left behind.

Every process under it carries the home's path in its environment (``HOME_MARK``): that is how leftovers of a killed supervisord
are told from other people's processes, and from those of other homes. Belongs here: supervisord's own mechanics. Does not belong
here: which programs there are (``programs``), and in which order they start (``services``).
"""

import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from xmlrpc.client import Fault, ServerProxy, Transport

import psutil
from pydantic import SecretStr

from producer.python import module_command
from producer.settings import ENV_PREFIX
from wikistream_assets.exceptions import SetupError
from wikistream_assets.machine.variables import built
from wikistream_assets.settings import Settings

HOME_MARK: Final = "SUPERVISED_WIKISTREAM_HOME"

VERSION_MARK: Final = "SUPERVISED_WIKISTREAM_VERSION"
"""Stands in a program's configuration file: if another version is installed, the file differs, and the program is restarted."""

NAME_MARK: Final = "SUPERVISOR_PROCESS_NAME"
"""supervisord tells each program its name by this variable, and the program's children inherit it."""

STOP_SECONDS: Final = 30
"""A program that has not ended so long after SIGTERM is killed, with its children."""

_SOCKET_PATH_BYTES: Final = 90
"""A unix socket's path may have 107 bytes; supervisord first binds to this path with its process id appended."""

_RPC_SECONDS: Final = STOP_SECONDS + 10.0
_DOWN_SECONDS: Final = 2 * STOP_SECONDS
_GONE: Final = (FileNotFoundError, ConnectionRefusedError)

_MALLOC: Final = {"MALLOC_ARENA_MAX": "2"}
"""glibc gives the threads of a process up to eight arenas a processor, and each keeps what it has once taken."""


def start(settings: Settings, configuration: Path) -> None:
    """Start supervisord from a configuration file; it detaches itself.

    Raises:
        SetupError: it does not start; the text has its reason.
    """
    _make_socket_folder(settings)
    # relative to the home: supervisord expands '%' in the configuration's own path
    command = module_command("supervisor.supervisord", "-c", str(configuration.relative_to(settings.root)))
    result = subprocess.run(
        command, cwd=settings.root, env=inherited(settings), capture_output=True, text=True, timeout=60, check=False
    )
    if result.returncode != 0:
        lines = (result.stdout + result.stderr).strip().splitlines() or ["no output"]
        reason = next((line for line in lines if line.startswith("Error")), lines[-1])
        raise SetupError(f"supervisord does not start ({reason}): see {settings.root / 'logs' / 'supervisord.log'}")


def stop(settings: Settings) -> list[str]:
    """End supervisord and everything marked as this home's, gently first; return the names of the programs that ran."""
    processes = marked_processes(settings.root)
    stopped = sorted({name for process in processes if (name := program_name(process))})
    for process in set(processes) - _shut_down(settings):
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=_DOWN_SECONDS)
    # again from a fresh look: supervisord may have restarted a program between the look and its own end
    for process in {*alive, *marked_processes(settings.root)}:
        _quietly(process.kill)
        psutil.wait_procs([process], timeout=STOP_SECONDS)
    path = socket_path(settings)
    path.unlink(missing_ok=True)
    if path.parent != settings.root / "run" and path.parent.exists():
        path.parent.rmdir()
    return stopped


def process_infos(settings: Settings) -> dict[str, dict[str, Any]] | None:
    """Return what supervisord knows of each program; None if there is no supervisord for this home.

    Raises:
        SetupError: it is there but does not answer.
    """
    try:
        return {info["name"]: info for info in call(settings, "getAllProcessInfo")}
    except _GONE:
        return None
    except (OSError, HTTPException, Fault) as error:
        raise SetupError(
            f"supervisord of {settings.root} does not answer ({error}): run 'make down', then 'make up'"
        ) from None


def processor_seconds(settings: Settings, name: str) -> float | None:
    """Processor time that a program's process has used since it started, its children's not counted; None if there is none.

    Raises:
        SetupError: supervisord does not answer.
    """
    info = (process_infos(settings) or {}).get(name)
    if info is None or not info["pid"]:
        return None
    try:
        times = psutil.Process(info["pid"]).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(times.user + times.system)


def revive(settings: Settings, pid: int) -> None:
    """End a supervised process, gently first, its children with it at last; supervisord starts it again by itself.

    Unlike a stop followed by a start, this leaves nothing undone if the caller is killed half way.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.environ().get(HOME_MARK) != str(settings.root):
            return
        process.terminate()
        _, alive = psutil.wait_procs([process], timeout=STOP_SECONDS)
        if alive:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # supervisord makes each program the leader of a group


def inherited(settings: Settings) -> dict[str, str]:
    """The environment that supervisord hands on to all programs, see ``variables``.

    Secrets are in it, because supervisord's configuration is a file that others may read. Other settings are not: each program
    gets those it knows, so that a change restarts only whom it concerns.
    """
    others = {name: value for name, value in built(os.environ).items() if not name.upper().startswith(ENV_PREFIX)}
    return {**_MALLOC, **others, **_secrets(settings), HOME_MARK: str(settings.root)}


def has_other_secrets(settings: Settings) -> bool:
    """Whether this home's supervisord was started with other secrets than the settings hold now."""
    try:
        environment = psutil.Process(call(settings, "getPID")).environ()
    except (OSError, HTTPException, Fault, psutil.Error):
        return False
    known = {name: value for name, value in environment.items() if name.startswith(ENV_PREFIX)}
    return known != _secrets(settings)


def _secrets(settings: Settings) -> dict[str, str]:
    return {
        f"{ENV_PREFIX}{name.upper()}": value.get_secret_value()
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    }


def call(settings: Settings, method: str, *arguments: object) -> Any:
    """Call a method of supervisord's XML-RPC interface, e.g. ``startProcess``.

    Raises:
        OSError: there is no supervisord, or it does not answer in time.
        Fault: it refuses; see ``supervisor.xmlrpc.Faults``.
    """
    with ServerProxy("http://supervisord", transport=_UnixTransport(socket_path(settings)), allow_none=True) as server:
        return getattr(server.supervisor, method)(*arguments)


def socket_path(settings: Settings) -> Path:
    """Return where supervisord listens: in the home, or below /tmp if that is too long.

    Not where ``TMPDIR`` points: it differs between a terminal and cron, and each has to find the other's supervisord.
    """
    usual = settings.root / "run" / "supervisor.sock"
    if len(os.fsencode(usual)) <= _SOCKET_PATH_BYTES:
        return usual
    digest = hashlib.sha256(os.fsencode(settings.root)).hexdigest()[:16]
    return Path(f"/tmp/wikistream-{os.getuid()}-{digest}/supervisor.sock")  # noqa: S108  # in a folder that only we can use


def marked_processes(root: Path) -> list[psutil.Process]:
    """Return the processes of this home's programs; never this process or one that it runs under.

    The mark is the home's path at their start. If the home was moved since, their working directory has moved along with it.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = psutil.process_iter(["environ", "cwd"])
    return [process for process in found if process.pid not in own and _is_of(process, root)]


def program_name(process: psutil.Process) -> str | None:
    """Return under which name supervisord started this process, or the one it descends from."""
    return _environment(process).get(NAME_MARK)


def version_of(process: psutil.Process) -> str | None:
    """Return the version of WikiStream that was installed when the program was started; None before versions were noted."""
    return _environment(process).get(VERSION_MARK)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")  # the host of the requests' header; a path may hold what no host name can
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_RPC_SECONDS)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class _UnixTransport(Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = (host, connection)  # so that closing the ServerProxy closes it
        return connection


def _make_socket_folder(settings: Settings) -> None:
    folder = socket_path(settings).parent
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SetupError(f"{folder} belongs to another user: set WIKISTREAM_HOME to a shorter path")


def _shut_down(settings: Settings) -> set[psutil.Process]:
    """Ask supervisord to end itself and its programs; return those whose end it sees to, none if there is no supervisord."""
    try:
        own = psutil.Process(call(settings, "getPID"))
        seen_to = {own, *own.children(recursive=True)}
        call(settings, "shutdown")
    except (OSError, HTTPException, Fault, psutil.NoSuchProcess):
        return set()
    return seen_to


def _is_of(process: psutil.Process, root: Path) -> bool:
    mark = _environment(process).get(HOME_MARK)
    return mark is not None and str(root) in (mark, process.info["cwd"])


def _environment(process: psutil.Process) -> Mapping[str, str]:
    return process.info["environ"] or {}  # None for other users' processes


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
