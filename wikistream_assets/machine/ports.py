"""Loopback ports: one that is free, whether a certain one is, who has it, whether somebody answers there."""

import errno
import socket
import time
from collections.abc import Callable
from typing import Final

import psutil

from wikistream_assets.exceptions import BrokerError, SetupError

_POLL_SECONDS: Final = 0.1


def free_port() -> int:
    """Return a loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def wait_for_listener(port: int, timeout: float, still_alive: Callable[[], object]) -> None:
    """Return once somebody takes connections on a loopback port.

    Args:
        port: the port.
        timeout: seconds to wait.
        still_alive: called between attempts; raises if waiting has become pointless.

    Raises:
        SetupError: nobody did in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise SetupError(f"nobody answers on port {port} after {timeout:.0f} s: see the logs in WIKISTREAM_HOME")
        still_alive()
        time.sleep(_POLL_SECONDS)
