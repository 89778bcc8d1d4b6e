"""The process that executes cycles, one after the other, and stays: imports, JVM and compiled code are paid for once.

A process of its own for each run, which is Dagster's default, spends more time on its start than on the rows of a short cycle.
``run_launcher`` hands a run over by a tag, and Dagster's own storage is the queue. What kills this process, or its JVM, kills its
run as well: run monitoring notices, a retry follows, and the process manager has another worker ready.
``python -m wikistream_assets.instance.run_worker``.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import dagster as dg

from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.embedded.spark import jvm_process, local_session
from wikistream_assets.exceptions import WikistreamError
from wikistream_assets.instance.dagster_private import execute_run
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.instance.run_launcher import HANDED_OVER, WORKER_LOCK
from wikistream_assets.settings import load_settings

_POLL_SECONDS: Final = 0.3
_NICE: Final = 5
"""The stream has the processors first: its events are seen within seconds, those of a cycle within a minute."""

_RUNS: Final = 200
"""A process that has executed so many makes room for a new one, some hours on: Python's memory, in which what is freed leaves
gaps, grows by 1 to 2 MiB a run at 500 events a second (``make soak``)."""

_log: Final = logging.getLogger(__name__)


def next_run(instance: dg.DagsterInstance) -> str | None:
    """The oldest run that was handed over and has not been begun."""
    starting = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]), ascending=True)
    return next((run.run_id for run in starting if run.tags.get(HANDED_OVER) == run.run_id), None)


def execute(instance: dg.DagsterInstance, run_id: str) -> None:
    """Execute a run in this process. How it ends is Dagster's to say, in its own events."""
    _log.info("run %s", run_id)
    execute_run(run_id, instance, lambda _: None, set_exit_code_on_failure=False)


def serve(instance: dg.DagsterInstance, runs: int) -> None:
    """Execute what is handed over, one run after the other; returns after so many."""
    with ThreadPoolExecutor(1) as beside:
        for _ in range(runs):
            while (run_id := next_run(instance)) is None:
                time.sleep(_POLL_SECONDS)
            beside.submit(execute, instance, run_id).result()


@contextmanager
def ending_with(jvm: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within the block this process is killed as soon as its JVM has ended, and with it the run under way.

    Without a JVM that run and each further one would fail as broken, which is not started again.
    """
    over = threading.Event()

    def follow() -> None:
        jvm.wait()
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, name="jvm", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def main(arguments: list[str] | None = None) -> int:
    """Take runs until told to stop, or until it has been enough; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wikistream_assets.instance.run_worker", description=__doc__)
    parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    os.nice(_NICE)
    try:
        settings = load_settings()
        with writer_lock(settings, WORKER_LOCK), dagster_instance(settings) as instance:
            session = local_session(settings, lasting=True)
            session.range(1).count()  # the JVM is there before the first run
            # Told to stop amid a run, it goes at once: a killed run is started again, a cancelled one would wait for a person.
            # In the main thread Dagster would put its own handlers in place and end the run, but not this process.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _log.info("ready")
            with ending_with(jvm_process(session)):
                serve(instance, _RUNS)
        _log.info("%d runs: a new process goes on", _RUNS)
        return 0
    except WikistreamError as error:
        _log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
