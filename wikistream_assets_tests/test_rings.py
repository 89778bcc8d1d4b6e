"""Every room of the package, its ring, and what it may import: the rooms before it in this list, and no other."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.unit

PACKAGE = "wikistream_assets"
ROOT = Path(__file__).parents[1]

PURE: Final = ("exceptions", "text", "quality", "tables", "transforms", "streams")
MIDDLE: Final = (
    *("settings", "machine", "lake", "kafka", "supervision", "embedded", "environment", "engine", "upkeep"),
    *("instance", "alerts", "metrics", "readers"),
)
OUTER: Final = ("resources", "components", "defs", "definitions", "cli", "__main__", "__init__")
ROOMS: Final = (*PURE, *MIDDLE, *OUTER)

NO_STREAM_BY_NAME: Final = {"engine", "lake", "kafka", "upkeep", "supervision", "alerts", "metrics"}
"""What streams are passed into."""

LOOSE: Final = {"__init__", "__main__", "definitions", "exceptions", "settings"}
DAGSTER: Final = {"instance", "metrics", "resources", "components", "defs", "definitions", "cli"}
AWS: Final = {"alerts"}
FOREIGN_TO_PURE: Final = {
    *("dagster", "boto3", "pyiceberg", "confluent_kafka", "duckdb", "psutil", "requests"),
    *("os", "pathlib", "subprocess", "sqlite3", "socket", "tempfile", "shutil"),
}
BRIDGES: Final = {("quality/deequ.py", "os")}  # PyDeequ wants Spark's version in a variable when it is imported


def imports(package: str) -> Iterator[tuple[str, list[str]]]:
    """Each module of the package, by its path in it, and each name it imports, in parts; imports within functions too."""
    root = ROOT / package
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((module, name.name.split(".")) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{module}: imports are absolute here"
                yield from ((module, [*node.module.split("."), name.name]) for name in node.names)


def room_of(module: str) -> str:
    return module.partition("/")[0].removesuffix(".py")


def test_every_folder_is_a_room_and_no_module_lies_loose() -> None:
    folders = {path.parent.relative_to(ROOT / PACKAGE).parts[0] for path in (ROOT / PACKAGE).glob("*/**/*.py")}
    assert folders == set(ROOMS) - LOOSE
    assert {path.stem for path in (ROOT / PACKAGE).glob("*.py")} == LOOSE


def test_every_room_says_what_belongs_there_and_what_does_not() -> None:
    for room in set(ROOMS) - LOOSE:
        said = ast.get_docstring(ast.parse((ROOT / PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
        assert said, f"{room}/__init__.py says nothing"
        assert "Does not belong here" in said, f"{room}/__init__.py does not say what belongs elsewhere"


def test_rooms_import_only_rooms_before_them() -> None:
    rank = {room: place for place, room in enumerate(ROOMS)}
    arrows = {
        (room_of(module), parts[1]) for module, parts in imports(PACKAGE) if parts[0] == PACKAGE and len(parts) > 1
    }
    assert len(arrows) > 50
    assert {(room, other) for room, other in arrows if rank[other] > rank[room]} == set()


def test_the_engine_and_its_like_know_no_stream_by_name() -> None:
    named = {path.name for path in (ROOT / PACKAGE / "streams").iterdir() if (path / "__init__.py").exists()}
    assert "edits" in named
    found = {
        (module, parts[2])
        for module, parts in imports(PACKAGE)
        if parts[:2] == [PACKAGE, "streams"] and len(parts) > 2 and room_of(module) in NO_STREAM_BY_NAME
    }
    assert {module for module, _ in found}, "they know declarations"
    assert {(module, name) for module, name in found if name in named} == set()


def test_the_pure_rooms_know_neither_files_nor_services() -> None:
    found = {(module, parts[0]) for module, parts in imports(PACKAGE) if room_of(module) in PURE}
    assert {(module, name) for module, name in found if name in FOREIGN_TO_PURE} == BRIDGES


def test_dagster_and_aws_are_known_to_the_rooms_for_them() -> None:
    users: dict[str, set[str]] = {"dagster": set(), "boto3": set()}
    for module, parts in imports(PACKAGE):
        if parts[0] in users:
            users[parts[0]].add(room_of(module))
    assert users == {"dagster": DAGSTER, "boto3": AWS}


def test_what_dagster_keeps_private_is_imported_in_one_module() -> None:
    private = {
        module
        for module, parts in imports(PACKAGE)
        if parts[0] in ("dagster", "dagster_shared")
        and len(parts) > 2
        and (parts[0] == "dagster_shared" or parts[1].startswith("_"))
    }
    assert private == {"instance/dagster_private.py"}


def test_the_producer_stands_alone() -> None:
    roots = {parts[0] for _, parts in imports("producer")}
    assert "confluent_kafka" in roots
    assert roots.isdisjoint({PACKAGE, "dagster", "pyspark", "pyiceberg"})
