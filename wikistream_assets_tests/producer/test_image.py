"""What can be known of the image without Docker: its Dockerfile, its requirements, and that the package stands alone."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import producer

pytestmark = pytest.mark.local

PACKAGE = Path(producer.__file__).parent
ROOT = PACKAGE.parent


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", (PACKAGE / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, arguments.strip()) for name, _, arguments in (line.partition(" ") for line in lines)]


def test_base_is_pinned() -> None:
    bases = [arguments for name, arguments in instructions() if name == "FROM"]
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])


def test_runs_as_a_user_without_rights() -> None:
    users = [arguments for name, arguments in instructions() if name == "USER"]
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) >= 1_000
    order = [name for name, _ in instructions()]
    assert max(i for i, name in enumerate(order) if name in ("RUN", "COPY")) < order.index("USER")


def test_entry_point_gets_the_signals() -> None:
    found = dict(instructions())
    assert json.loads(found["ENTRYPOINT"]) == ["python", "-m", "producer"]
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert "ADD" not in found


def test_health_check_asks_the_metrics_port() -> None:
    command = json.loads(dict(instructions())["HEALTHCHECK"].split("CMD", 1)[1])
    assert command[0] == "python"
    ast.parse(command[2])
    environment = next(arguments for name, arguments in instructions() if name == "ENV")
    assert "WIKISTREAM_PRODUCER_METRICS_PORT=" in environment
    assert "WIKISTREAM_PRODUCER_METRICS_PORT" in command[2]


def test_only_the_producer_is_copied() -> None:
    sources = [arguments.split()[0] for name, arguments in instructions() if name == "COPY"]
    assert all(source.startswith("producer") and (ROOT / source).exists() for source in sources)
    assert (PACKAGE / "Dockerfile.dockerignore").read_text().splitlines()[1:3] == ["*", "!producer"]


def pins() -> dict[str, str]:
    lines = (PACKAGE / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def test_requirements_are_pinned_and_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[=<>~!]", entry)[0] for entry in project}
    direct = set(pins()) - {"requests", "urllib3"}  # come with requests-sse; named because transport.py builds on them
    assert direct <= names
    for entry in project:
        name, _, pinned = entry.partition("==")
        if pinned and name in pins():
            assert pins()[name] == pinned


def test_requirements_are_what_the_package_imports() -> None:
    modules = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add((node.module or "").split(".")[0])
    third_party = {module.replace("_", "-") for module in modules if module not in sys.stdlib_module_names} - {
        "producer"
    }
    assert third_party == set(pins())
    assert all(version(name) for name in pins())


def test_package_stands_alone() -> None:
    code = (
        "import sys, producer.__main__, producer.eventstreams.__main__, producer.launch\n"
        "heavy = {'dagster', 'pyspark', 'pyiceberg', 'wikistream_assets'} & {name.split('.')[0] for name in sys.modules}\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
