"""How the project's processes are started and ended: not by what lies in the current folder, and by a hang-up too."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from producer.eventstreams.generator import Generator
from producer.launch import served, source_from
from producer.python import module_command
from producer.settings import ProducerSettings

pytestmark = pytest.mark.local

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, also in PYTHONPATH, full of modules that leave a mark when they are imported."""
    mark = tmp_path / "executed"
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("producer", "wikistream_assets", "supervisor", "dagster", "logging", "json", "sitecustomize"):
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\nraise SystemExit('trapped')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return mark


def test_modules_of_the_current_folder_are_not_executed(trap: Path) -> None:
    settings = ProducerSettings()
    source = source_from("synthetic", settings, Generator(events=20))
    with served(source, settings) as url, requests.get(url, stream=True, timeout=30) as answer:
        assert answer.status_code == 200
    assert not trap.exists()


@pytest.mark.parametrize("module", ["supervisor.supervisord", "wikistream_assets"])
def test_nor_by_another_module(trap: Path, module: str) -> None:
    done = subprocess.run(module_command(module, "--help"), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, trap.exists()) == (0, False), done.stderr


def test_modules_are_started_in_one_way() -> None:
    named = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("producer", "wikistream_assets")
        for path in (REPOSITORY / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.List | ast.Tuple) and "sys.executable" in map(ast.unparse, node.elts)
    }
    assert named == {"producer/python.py"}


_STOPPED = """
import os, signal
from producer.signals import on_stop
on_stop(lambda: print("stopping"))
os.kill(os.getpid(), signal.SIGHUP)
print("went on")
"""


@pytest.mark.parametrize(("at_start", "said"), [(signal.SIG_DFL, "stopping\nwent on\n"), (signal.SIG_IGN, "went on\n")])
def test_a_hang_up_stops_unless_started_to_outlive_it(at_start: signal.Handlers, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, at_start),  # as nohup does
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr


_CLEANS_UP = """
import os, signal
from producer.signals import clean_up_when_stopped
clean_up_when_stopped()
try:
    os.kill(os.getpid(), signal.SIGHUP)
finally:
    os.kill(os.getpid(), signal.SIGTERM)  # the second one does not cut the clean-up short
    print("cleaned up")
"""


@pytest.mark.usefixtures("hang_ups_count")
def test_a_hang_up_leaves_time_to_clean_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CLEANS_UP], capture_output=True, text=True, env=os.environ, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "cleaned up\n"), done.stderr
