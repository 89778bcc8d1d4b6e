"""Dependencies point inwards, as docs/ARCHITECTURE.md says: wiring, environment, pure; the producer stands alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

PACKAGE = "wikistream_assets"
PURE = ("tables", "transforms", "quality")
ENVIRONMENT = ("jobs", "operations", "resources", "embedded", "alerts", "metrics")
WIRING = (
    *("defs", "definitions", "asset_factory", "cli", "demo", "cycles", "dagster_home", "dagster_history", "health"),
    *("run_launcher", "run_worker", "code_server", "ui_server", "record_classes"),
)
BRIDGES = {
    ("embedded/programs.py", "dagster_home"),  # 'make up' prepares Dagster's home
    ("metrics/lake.py", "dagster_home"),  # Dagster alone knows
    ("metrics/lake.py", "cycles"),  # the newest cycle
}


def imports(package: str, *folders: str) -> Iterator[tuple[str, list[str]]]:
    """Each module below the folders, by its path in the package, and each name it imports, in parts; lazy imports too."""
    root = Path(__file__).parents[1] / package
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            module = path.relative_to(root).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from ((module, name.name.split(".")) for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    assert node.level == 0, f"{module}: imports are absolute here"
                    yield from ((module, [*node.module.split("."), name.name]) for name in node.names)


def test_the_pure_ring_knows_itself_and_the_errors() -> None:
    found = {parts[1] for _, parts in imports(PACKAGE, *PURE) if parts[0] == PACKAGE}
    assert set(PURE) <= found <= {*PURE, "exceptions"}


def test_the_environment_knows_nothing_of_the_wiring() -> None:
    found = {(module, parts[1]) for module, parts in imports(PACKAGE, *ENVIRONMENT) if parts[0] == PACKAGE}
    assert {(module, name) for module, name in found if name in WIRING} == BRIDGES


def test_the_producer_stands_alone() -> None:
    roots = {parts[0] for _, parts in imports("producer", ".")}
    assert "confluent_kafka" in roots
    assert roots.isdisjoint({PACKAGE, "dagster", "pyspark", "pyiceberg"})
