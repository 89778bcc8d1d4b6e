"""The code server as a process: it serves the definitions, and ends by itself when it is old and idle."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
from dagster._grpc.client import DagsterGrpcClient

from wikistream_assets.embedded.home import open_home
from wikistream_assets.instance import code_server
from wikistream_assets.machine.ports import wait_for_listener
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import child_environment, free_port, wait_until

pytestmark = pytest.mark.e2e


def test_it_serves_and_ends_at_its_age(settings: Settings) -> None:
    open_home(settings)
    environment = {**os.environ, **child_environment(settings), "DAGSTER_HOME": str(settings.dagster_home)}
    command = [sys.executable, "-m", "wikistream_assets.instance.code_server", "--port", str(settings.code_port)]
    server = subprocess.Popen([*command, "--hours", str(5 / 3600)], env=environment)
    try:
        wait_for_listener(settings.code_port, 120, lambda: None)
        answered = time.monotonic()
        client = DagsterGrpcClient(port=settings.code_port, host="127.0.0.1")
        assert "wikistream_assets.definitions" in client.list_repositories()
        assert server.wait(120) == 0
        assert time.monotonic() - answered > 4
    finally:
        server.kill()
        server.wait()


def test_it_does_not_end_while_a_run_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    monkeypatch.setattr(DagsterGrpcClient, "shutdown_server", lambda _: told.set())
    monkeypatch.setattr(code_server, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(code_server, "wait_for_listener", lambda *_: None)
    run = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(3600,))  # as the server starts a run
    run.start()
    try:
        threading.Thread(target=code_server._end_after, args=(0.0, free_port()), daemon=True).start()
        assert not told.wait(1.0)
    finally:
        run.kill()
    wait_until(told.is_set, 30)
    run.join()
