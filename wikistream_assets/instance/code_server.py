"""Dagster's code server, which makes room for a new process twice a day.

Each tick of each sensor is evaluated in it, and leaves some kilobytes behind (Alembic registers one more clean-up for the end of
the process with each instance that Dagster opens, for one): 42 MiB an hour (``make soak``), so a pipeline that is left alone for
a week would lose a machine's memory to it. ``python -m wikistream_assets.instance.code_server --port N``.
"""

import argparse
import multiprocessing
import threading
import time
from typing import Final

from wikistream_assets.embedded.programs import LOCATION
from wikistream_assets.instance.dagster_private import DagsterGrpcClient, grpc_command
from wikistream_assets.machine.ports import wait_for_listener

_HOURS: Final = 12.0
_START_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 1.0


def main(arguments: list[str] | None = None) -> None:
    """Serve the definitions on a loopback port; returns when it is told to end, or once it is old enough and idle."""
    parser = argparse.ArgumentParser(prog="python -m wikistream_assets.instance.code_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="loopback port to listen on")
    parser.add_argument("--hours", type=float, default=_HOURS, help="how long it serves (default: %(default)g)")
    given = parser.parse_args(arguments)
    threading.Thread(target=_end_after, args=(given.hours * 3600, given.port), name="age", daemon=True).start()
    definitions = ("-m", "wikistream_assets.definitions", "--location-name", LOCATION, "--empty-working-directory")
    grpc_command.main([*definitions, "-h", "127.0.0.1", "-p", str(given.port)], standalone_mode=False)


def _end_after(seconds: float, port: int) -> None:
    """Ask the server to shut down when it has served so long, not while a run that it has started is at work.

    Told so earlier, it would wait for the run as well, and refuse to start any other meanwhile.
    """
    wait_for_listener(port, _START_SECONDS, lambda: None)
    time.sleep(seconds)
    while multiprocessing.active_children():
        time.sleep(_POLL_SECONDS)
    DagsterGrpcClient(port=port, host="127.0.0.1").shutdown_server()


if __name__ == "__main__":
    main()
