"""Restarting the stream under a real supervisord, with a stand-in that only counts its starts."""

import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from wikistream_assets.embedded import supervisor
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.stream import SupervisedStream
from wikistream_assets.settings import Settings
from wikistream_assets.supervision.stream_control import StreamState
from wikistream_assets_tests.conftest import wait_until

pytestmark = pytest.mark.local

_PROGRAM = """
import os, pathlib, signal, sys
with pathlib.Path(sys.argv[1]).open("a") as starts:
    starts.write(f"{os.getpid()}\\n")
while True:
    signal.pause()
"""


@pytest.fixture
def starts(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A home with a supervisord whose program ``stream`` adds a line to this file at each start."""
    root = open_home(settings)
    path = tmp_path / "starts"
    configuration = root / "run" / "supervisord.conf"
    configuration.write_text(
        f"[unix_http_server]\nfile={supervisor.socket_path(settings)}\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        "[supervisord]\npidfile=run/supervisord.pid\nlogfile=logs/supervisord.log\n"
        f"[program:stream]\ncommand={shlex.join([sys.executable, str(tmp_path / 'program.py'), str(path)])}\n"
        "startsecs=0\nautorestart=true\nkillasgroup=true\n"
    )
    (tmp_path / "program.py").write_text(_PROGRAM)
    supervisor.start(settings, configuration)
    wait_until(lambda: count(path) == 1)
    yield path
    supervisor.stop(settings)


def count(starts: Path) -> int:
    return len(starts.read_text().splitlines()) if starts.exists() else 0


def running(control: SupervisedStream) -> StreamState:
    wait_until(lambda: control.state().running)
    return control.state()


def test_without_a_supervisor_nothing_runs_and_nothing_is_restarted(settings: Settings) -> None:
    control = SupervisedStream(settings)
    state = control.state()
    assert (state.running, state.instance, state.since) == (False, None, None)
    assert "make up" in state.detail
    assert not control.restart(None)
    assert not control.restart("1:1")


def test_who_asks_for_an_instance_that_is_gone_gets_nothing(settings: Settings, starts: Path) -> None:
    control = SupervisedStream(settings)
    first = running(control)
    assert first.instance is not None
    assert first.instance.startswith(starts.read_text().strip() + ":")
    assert first.since is not None
    assert first.died is None
    assert datetime.now(UTC) - timedelta(minutes=1) < first.since <= datetime.now(UTC)
    assert not control.restart("1:1")
    assert not control.restart(None)

    # Two daemons see the same stalled instance at the same moment.
    together = threading.Barrier(2)

    def ask(_: int) -> bool:
        together.wait()
        return SupervisedStream(settings).restart(first.instance)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(ask, range(2))) == [False, True]
    second = running(control)
    assert second.instance != first.instance
    assert second.died is not None
    assert first.since <= second.died <= datetime.now(UTC)
    wait_until(lambda: count(starts) == 2)

    # The control: without the comparison, each of them ends what it finds.
    for number in (3, 4):
        found = running(control).instance
        assert found is not None
        supervisor.revive(settings, int(found.partition(":")[0]))
        wait_until(lambda number=number: count(starts) == number)


def test_a_stream_that_was_given_up_is_started(settings: Settings, starts: Path) -> None:
    control = SupervisedStream(settings)
    supervisor.call(settings, "stopProcess", "stream")
    state = control.state()
    assert (state.running, state.instance) == (False, None)
    assert state.since is not None
    assert control.restart(None)
    assert running(control).instance is not None
    assert not control.restart(None)
    wait_until(lambda: count(starts) == 2)


def test_the_process_of_another_home_is_left_alone(settings: Settings) -> None:
    process = psutil.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        supervisor.revive(settings, process.pid)
        assert process.is_running()
    finally:
        process.kill()
        process.wait()
