"""What differs between two snapshots of a table, by key: DuckDB over the data files that only one of the two has.

Rows are compared in the columns that a table's hash covers: a Gold day computed again from the same events is no change.
"""

from dataclasses import dataclass
from typing import Any, Final

from pyiceberg.table import Table

from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import connect, relation
from wikistream_assets.lake.state import Version
from wikistream_assets.lake.table_hash import hashed_columns
from wikistream_assets.tables.spec import TableSpec

ADDED: Final = "added"
REMOVED: Final = "removed"
CHANGED: Final = "changed"


@dataclass(frozen=True)
class Example:
    """One row that differs.

    Attributes:
        change: added, removed or changed.
        key: the row's key columns.
        columns: of a changed row: column -> its value before and after.
    """

    change: str
    key: dict[str, Any]
    columns: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Difference:
    """From one snapshot to another.

    Attributes:
        added / removed / changed: rows by key.
        files: data files that had to be read.
        examples: a few of the rows, in order of their keys.
    """

    added: int
    removed: int
    changed: int
    files: int
    examples: tuple[Example, ...]


def version_named(lake: Lakehouse, spec: TableSpec, name: str) -> Version:
    """The version that ``name`` means: a snapshot id, a branch or a tag.

    Raises:
        LakeError: the table has no such snapshot.
    """
    version = next(lake.state(spec).history(int(name) if name.isdecimal() else name), None)
    if version is None:
        raise LakeError(
            f"{spec.identifier} has no snapshot {name!r}, or it has expired; see: wikistream snapshots {spec.identifier}"
        )
    return version


def difference(lake: Lakehouse, spec: TableSpec, before: int, after: int, examples: int) -> Difference:
    """Compare two snapshots, whichever is older. Reads only files that one of them has and the other has not."""
    table = lake.table(spec)
    old, new = _files(table, before), _files(table, after)
    columns = [name for name in hashed_columns(spec.identifier) if name not in spec.key]
    with connect(lake) as connection:
        a, b = (relation(connection, spec, table, snapshot, left_out=old & new) for snapshot in (before, after))
        connection.execute(f"CREATE TEMP TABLE differing AS {_differing_sql(spec, columns, a, b)}")
        counts = dict(connection.execute("SELECT change, count(*) FROM differing GROUP BY change").fetchall())
        in_order = connection.execute("SELECT * FROM differing ORDER BY ALL LIMIT ?", [examples])
        shown = tuple(_example(spec, columns, row) for row in in_order.fetchall())
    return Difference(counts.get(ADDED, 0), counts.get(REMOVED, 0), counts.get(CHANGED, 0), len(old ^ new), shown)


def _files(table: Table, snapshot_id: int) -> frozenset[str]:
    return frozenset(task.file.file_path for task in table.scan(snapshot_id=snapshot_id).plan_files())


def _differing_sql(spec: TableSpec, columns: list[str], a: str, b: str) -> str:
    """One row for each key that differs: its change, the key columns, the other columns before, and those after."""
    same_key = " AND ".join(f'a."{name}" IS NOT DISTINCT FROM b."{name}"' for name in spec.key)
    changed = " OR ".join(f'a."{name}" IS DISTINCT FROM b."{name}"' for name in columns)
    change = f"CASE WHEN a.there IS NULL THEN '{ADDED}' WHEN b.there IS NULL THEN '{REMOVED}' WHEN {changed} THEN '{CHANGED}' END"
    shown = [f'coalesce(a."{name}", b."{name}") AS "{name}"' for name in spec.key]
    shown += [f'{side}."{name}" AS "{side}_{name}"' for side in ("a", "b") for name in columns]
    return (  # names of the contract and planned paths, all quoted
        f"SELECT * FROM (SELECT {change} AS change, {', '.join(shown)} FROM (SELECT *, true AS there FROM ({a})) a"  # noqa: S608
        f" FULL OUTER JOIN (SELECT *, true AS there FROM ({b})) b ON {same_key}) WHERE change IS NOT NULL"
    )


def _example(spec: TableSpec, columns: list[str], row: tuple[Any, ...]) -> Example:
    change, values = row[0], row[1 + len(spec.key) :]
    before, after = values[: len(columns)], values[len(columns) :]
    different = {
        name: (old, new)
        for name, old, new in zip(columns, before, after, strict=True)
        if change == CHANGED and old != new
    }
    return Example(change, dict(zip(spec.key, row[1:], strict=False)), different)
