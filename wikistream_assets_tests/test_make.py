"""The Makefile and its scripts, run in a copy so that the repository's own environment is not touched."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).parents[1]
TARGETS = [
    "help",
    "demo",
    "dev",
    "up",
    "down",
    "health",
    "test",
    "check",
    "audit",
    "faults",
    "soak",
    "bench",
    "bench-long",
    "doctor",
    "clean",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with what bootstrap.sh and clean.sh work on."""
    root = tmp_path / "clone"
    root.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "infra" / "scripts", root / "infra" / "scripts")
    (root / "wikistream_assets" / "embedded").mkdir(parents=True)
    shutil.copy(REPOSITORY / "wikistream_assets" / "embedded" / "jars.lock", root / "wikistream_assets" / "embedded")
    return root


def make(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("WIKISTREAM_", "MAKE", "CONFIRM"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=root,
        env=clean | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def tools_without_python(folder: Path) -> str:
    """Return a PATH with the usual tools and no Python at all."""
    folder.mkdir()
    for tool in ("sh", "make", "awk", "cat", "cut", "dirname", "env", "grep", "head", "mktemp", "rm", "tail", "tee"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return str(folder)


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if not line.startswith("make")]


def test_help_is_the_default_and_names_exactly_the_targets() -> None:
    for arguments in ((), ("help",)):
        lines = make(REPOSITORY, *arguments).stdout.splitlines()
        assert [line.split()[1] for line in lines if line.startswith("  make ")] == TARGETS


def test_without_python_it_is_one_line(copy: Path, tmp_path: Path) -> None:
    result = make(copy, "up", PATH=tools_without_python(tmp_path / "bin"))
    assert result.returncode != 0
    assert errors(result) == [
        "error: Python 3.11 was not found: install it (python3.11 with its venv module), or name it by PYTHON=/path/to/python3.11"
    ]
    assert not (copy / ".venv").exists()


def test_another_python_is_not_taken(copy: Path, tmp_path: Path) -> None:
    path = tools_without_python(tmp_path / "bin")
    other = tmp_path / "bin" / "python3"
    other.write_text("#!/bin/sh\nexit 1\n")  # what the version check answers on any Python but 3.11
    other.chmod(0o755)
    result = make(copy, "up", PATH=path)
    assert result.returncode != 0
    assert errors(result)[0].startswith("error: Python 3.11 was not found")


def test_without_a_registry_it_is_one_line_and_leaves_no_stamp(copy: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    offline = {
        "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere,
        "ALL_PROXY": nowhere,
        "PIP_RETRIES": "0",
        "UV_NO_CACHE": "1",
    }
    result = make(copy, "doctor", **offline, PIP_CACHE_DIR=str(copy / "pip-cache"))
    assert result.returncode != 0
    (line,) = errors(result)
    assert line.startswith("error: the packages cannot be installed (")
    assert "check the network" in line
    assert not (copy / ".venv" / ".ready").exists()


def test_clean_removes_the_lake_only_when_told(copy: Path) -> None:
    lake, other = copy / "lake", copy / "other"
    for folder in (lake, other, copy / ".venv", copy / ".ruff_cache", copy / "producer" / "__pycache__"):
        folder.mkdir(parents=True)
    (lake / "lake.json").touch()
    kept = make(copy, "clean", WIKISTREAM_HOME=str(lake))
    assert kept.returncode == 0
    assert "make clean CONFIRM=1" in kept.stdout
    assert lake.is_dir()
    assert [(copy / name).exists() for name in (".venv", ".ruff_cache", "producer/__pycache__")] == [
        False,
        False,
        False,
    ]
    assert make(copy, "clean", "CONFIRM=1", WIKISTREAM_HOME=str(other)).returncode == 0
    assert other.is_dir()  # not a lake: a mistyped home costs nothing
    assert make(copy, "clean", "CONFIRM=1", WIKISTREAM_HOME=str(lake)).returncode == 0
    assert not lake.exists()


def test_what_a_profile_has_for_another_python_does_not_reach_set_up(copy: Path, tmp_path: Path) -> None:
    """A Python that stands in for the real one says what it was handed over, and then that it is none."""
    path = tools_without_python(tmp_path / "bin")
    told = tmp_path / "told"
    python = tmp_path / "bin" / "python3.11"
    python.write_text(f"#!/bin/sh\nenv >{told}\nexit 1\n")
    python.chmod(0o755)
    hostile = {
        "PYTHONHOME": "/no/such/folder",
        "PYTHONPATH": "/opt/spark/python",
        "PYTHONWARNINGS": "error",
        "PIP_TARGET": "/no/such/folder",
        "PIP_USER": "1",
        "PIP_REQUIRE_HASHES": "1",
        "UV_SYSTEM_PYTHON": "1",
        "UV_EXCLUDE_NEWER": "2020-01-01",
    }
    wanted = {"PIP_INDEX_URL": "https://registry.example.org/simple", "PIP_CERT": "/etc/ssl/ca.pem"}
    make(copy, "up", PATH=path, **hostile, **wanted)
    handed_over = dict(line.split("=", 1) for line in told.read_text(encoding="utf-8").splitlines() if "=" in line)
    assert {name: handed_over[name] for name in hostile if name in handed_over} == {"PIP_USER": "0"}
    assert {name: handed_over[name] for name in wanted} == wanted
