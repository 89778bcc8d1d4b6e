"""The run worker as a process: it is there with its JVM, and it is gone without it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, wait_until

pytestmark = pytest.mark.spark

SECONDS = 120.0


@pytest.fixture
def settings(settings_factory: SettingsFactory) -> Settings:
    settings = settings_factory(spark_memory_mb=512)
    open_home(settings)
    return settings


def started(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python process on the home; what it says goes to a file in it."""
    with (settings.root / "logs" / "worker.log").open("wb") as log:
        environment = {**os.environ, **child_environment(settings)}
        return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=log, stderr=log)


def said(settings: Settings) -> str:
    return (settings.root / "logs" / "worker.log").read_text()


def test_a_worker_whose_jvm_is_killed_is_gone_at_once(settings: Settings) -> None:
    worker = started(settings, "-m", "wikistream_assets.instance.run_worker")
    try:
        wait_until(lambda: " ready\n" in said(settings) or worker.poll() is not None, SECONDS)
        assert worker.poll() is None, said(settings)
        (jvm,) = (child for child in psutil.Process(worker.pid).children(recursive=True) if child.name() == "java")
        jvm.kill()
        assert worker.wait(10) == -signal.SIGKILL
    finally:
        worker.kill()
        worker.wait()


def test_a_jvm_that_runs_out_of_memory_has_ended(settings: Settings) -> None:
    # As in the worker, the block goes on behind a run that failed: the connection ends a moment before the process.
    script = """
import threading
from contextlib import suppress
from py4j.protocol import Py4JError
from wikistream_assets.embedded.spark import jvm_process, local_session
from wikistream_assets.instance.run_worker import ending_with
from wikistream_assets.settings import load_settings

session = local_session(load_settings())
with ending_with(jvm_process(session)):
    with suppress(Py4JError):
        session.sparkContext._jvm.java.util.ArrayList(1_000_000_000)
    threading.Event().wait()
"""
    process = started(settings, "-c", script)
    try:
        assert process.wait(SECONDS) == -signal.SIGKILL, said(settings)
        assert "OutOfMemoryError" in said(settings)
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_is_done_may_outlive_its_jvm(settings: Settings) -> None:
    script = """
import subprocess, threading
from wikistream_assets.instance.run_worker import ending_with

jvm = subprocess.Popen(["sleep", "600"])
with ending_with(jvm):
    pass
jvm.kill()
for thread in threading.enumerate():
    if thread.name == "jvm":
        thread.join()
"""
    process = started(settings, "-c", script)
    try:
        assert process.wait(SECONDS) == 0, said(settings)
    finally:
        process.kill()
        process.wait()
