"""Reading the lake with SQL and without a JVM: DuckDB over the data files that PyIceberg plans.

Belongs here: which files of which version a statement reads, and the fence around what a statement may do. Does not belong
here: how rows are shown (``cli``).

A reader sees each table at main's head when its statement starts. Tables that are recomputed together are read at the newest
version that all of them have: a statement never sees a mix of two publications, wherever the catalog keeps the pointers.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.table import Table

from wikistream_assets.exceptions import LakeError, WikistreamError
from wikistream_assets.lake.lakehouse import REMEDY, Lakehouse
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.state import MAIN, States, Version
from wikistream_assets.streams.declaration import Recompute
from wikistream_assets.streams.registry import ALL_TABLES, STREAMS
from wikistream_assets.tables.spec import ColumnType, TableSpec

MEMORY_LIMIT: Final = "2GB"
MAX_THREADS: Final = 4
FETCH_ROWS: Final = 1_000
"""Rows fetched at a time: a result larger than memory can be printed."""

_DUCKDB_TYPES: Final[dict[ColumnType, str]] = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}

_EVERYTHING: Final = AlwaysTrue()

# Only at the very start and without comments: what follows is then parsed by DuckDB itself, there is no second reading.
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?", re.IGNORECASE)

# Ways to name a table other than by writing its name: query('..'), query_table('..' || '..'), U&"\0072.."
_INDIRECT_NAMES: Final = ("query", "u&")


Versions = Callable[[Lakehouse, Sequence[TableSpec]], Mapping[str, Version]]
"""Says which version of each table is read, by identifier."""


class StatementError(WikistreamError):
    """The statement is not one query, or it does not run. The user's to mend: commands exit with 2."""


@dataclass(frozen=True)
class QueryResult:
    """What a query gives.

    Attributes:
        columns: names, made unique (``n``, ``n_1``, ..).
        rows: one tuple a row, fetched as it is read; raises ``StatementError`` where the query breaks on the way.
    """

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


def query(lake: Lakehouse, sql: str, versions: Versions | None = None) -> QueryResult:
    """Run one read-only statement on the lake; only the tables it names are planned.

    Args:
        lake: the lake to read.
        sql: one SELECT, WITH, VALUES, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN statement over ``namespace.name`` views.
        versions: which version of each table is read; those of now, ``readable_versions``, if it is not given.

    Raises:
        StatementError: not exactly one statement, not a query, or DuckDB refuses it; one line.
        LakeError: the four Gold tables have no version in common.
    """
    with _one_line_errors():
        check_statement(sql)
        connection = connect(lake)
        mentioned = mentioned_tables(sql)
        _create_views(connection, lake, mentioned, (versions or readable_versions)(lake, mentioned))
        _create_empty_views(connection, [spec for spec in ALL_TABLES if spec not in mentioned])
        connection.execute(sql)
        columns = _unique([column[0] for column in connection.description])
    return QueryResult(columns, _fetch(connection))


def open_views(lake: Lakehouse, tables: Sequence[TableSpec] = ALL_TABLES) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with one view per table, ``namespace.name``, for readers within the project.

    The connection is fenced as for ``query`` (no files outside the warehouse, no extensions, settings locked), but its
    statements are the caller's own and are not checked. The views stay at the versions of this moment.

    Raises:
        LakeError: the four Gold tables have no version in common.
    """
    with _one_line_errors():
        connection = connect(lake)
        _create_views(connection, lake, tables, readable_versions(lake, tables))
    return connection


def connect(lake: Lakehouse) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that can read the warehouse and nothing else: no other file, no network, no extension."""
    warehouse = local_path(lake.catalog.properties["warehouse"])
    # A file name that contains "[" is checked in its escaped form, see _glob_literal.
    folders = sorted({warehouse, _glob_literal(warehouse)})
    spill = Path(tempfile.gettempdir()) / f"wikistream-sql-{os.getpid()}"
    connection = duckdb.connect(
        config={
            "threads": min(MAX_THREADS, os.cpu_count() or 1),
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(spill),
        }
    )
    for setting in (
        "timezone = 'UTC'",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "python_enable_replacements = false",
        f"allowed_directories = [{', '.join(_literal(folder) for folder in folders)}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def relation(
    connection: duckdb.DuckDBPyConnection,
    spec: TableSpec,
    table: Table,
    snapshot_id: int,
    row_filter: BooleanExpression = _EVERYTHING,
    with_file: bool = False,
    left_out: Collection[str] = (),
) -> str:
    """SQL that yields the table's rows at one snapshot, columns and types as in the contract.

    Data files are matched by Iceberg field id: a column that a file is older than reads as NULL, and the footers of the
    files need not be opened to find out. Tables with delete files, which DuckDB cannot apply here, are read by PyIceberg.

    Args:
        connection: where the SQL will run; a table with delete files is registered there.
        spec: the contract.
        table: the table as loaded from the catalog.
        snapshot_id: the snapshot to read.
        row_filter: prunes files by partition and statistics. Rows that do not meet it may still come: filter in SQL too.
        with_file: add the column ``filename``, the data file's path; not for tables with delete files.
        left_out: locations of data files that need not be read; of a table with delete files all are.

    Raises:
        LakeError: ``with_file`` for a table with delete files.
    """
    scan = table.scan(row_filter=row_filter, snapshot_id=snapshot_id)
    tasks = [task for task in scan.plan_files() if task.file.file_path not in left_out]
    if not tasks:
        return _typed_empty(spec, with_file)
    if any(task.delete_files for task in tasks):
        if with_file:
            raise LakeError(f"{spec.identifier} has delete files; compact it first, rows cannot be told by file")
        return _registered(connection, spec, scan.to_arrow())
    files = ", ".join(_literal(_glob_literal(local_path(task.file.file_path))) for task in tasks)
    return (  # contracts' names and planned paths, all quoted
        f"SELECT * FROM read_parquet([{files}], schema = {_field_map(spec, table)}, hive_partitioning = false"  # noqa: S608
        f"{', filename = true' if with_file else ''})"
    )


def readable_versions(lake: Lakehouse, tables: Sequence[TableSpec] = ALL_TABLES) -> dict[str, Version]:
    """The version of each table that a reader sees, by identifier: main's head, of a recomputed table the newest in common."""
    states, versions = lake.look(), {}
    for spec in tables:
        head = states[spec].head()
        if head is None:
            raise LakeError(f"{spec.identifier} has no snapshot; restore WIKISTREAM_HOME or start a new one")
        versions[spec.identifier] = head
    for together in read_together(tables):
        common = common_versions(states, together)
        versions |= {spec.identifier: common[spec.identifier] for spec in tables if spec in together}
    return versions


def read_together(tables: Collection[TableSpec]) -> list[tuple[TableSpec, ...]]:
    """The recomputed tables that one of ``tables`` is published with: their rows must be of one version to agree."""
    return [
        publication.tables
        for stream in STREAMS.values()
        for publication in stream.publications
        if isinstance(publication.build, Recompute) and set(publication.tables) & set(tables)
    ]


def common_versions(
    states: States, tables: Sequence[TableSpec], heads: Mapping[str, int] | None = None
) -> dict[str, Version]:
    """The newest version of tables that are published together, made from one and the same range, by identifier.

    Args:
        tables: of one publication, the leading one first.
        heads: the snapshots to look back from, by identifier; main's heads if it is not given.

    A snapshot without a position (compaction) counts as the position of its ancestor: it holds the same rows.

    Raises:
        LakeError: no position occurs in the history of all.
    """
    by_position = [
        _newest_by_position(list(states[spec].history(heads[spec.identifier] if heads else MAIN))) for spec in tables
    ]
    for position in by_position[0]:
        if all(position in versions for versions in by_position):
            return {spec.identifier: versions[position] for spec, versions in zip(tables, by_position, strict=True)}
    names = ", ".join(spec.identifier for spec in tables)
    raise LakeError(f"{names} have no version in common: run the cycle once more, it completes the publication")


def mentioned_tables(sql: str) -> tuple[TableSpec, ...]:
    """The tables that a statement may read: those whose name occurs in it; all where it could name one indirectly.

    Too many cost a little planning, one too few would read as empty: hence by text and not by syntax.
    """
    text = sql.lower()
    if any(word in text for word in _INDIRECT_NAMES):
        return ALL_TABLES
    return tuple(spec for spec in ALL_TABLES if spec.name in text)


def check_statement(sql: str) -> None:
    """Refuse everything but one query.

    Raises:
        StatementError: no statement, more than one, or one that is not a query; one line.
        duckdb.Error: it does not parse.
    """
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        found = "no statement" if not statements else f"{len(statements)} statements"
        raise StatementError(f"{found} given: write exactly one query")
    kind = statements[0].type
    if kind == duckdb.StatementType.SELECT:
        return
    explained = _EXPLAIN.match(sql)
    if kind == duckdb.StatementType.EXPLAIN and explained:
        check_statement(sql[explained.end() :])
        return
    raise StatementError(
        f"{kind.name.replace('_', ' ')} is refused: the lake is read-only here "
        "(SELECT, WITH, VALUES, FROM, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN)"
    )


def _create_views(
    connection: duckdb.DuckDBPyConnection,
    lake: Lakehouse,
    tables: Sequence[TableSpec],
    versions: Mapping[str, Version],
) -> None:
    for spec in tables:
        rows = relation(connection, spec, lake.table(spec), versions[spec.identifier].snapshot_id)
        _create_view(connection, spec, rows)


def _create_empty_views(connection: duckdb.DuckDBPyConnection, tables: Sequence[TableSpec]) -> None:
    """Views of tables that the statement does not read: there to be listed by SHOW and in the information schema."""
    for spec in tables:
        _create_view(connection, spec, _typed_empty(spec))


def _create_view(connection: duckdb.DuckDBPyConnection, spec: TableSpec, rows: str) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_identifier(spec.namespace)}")
    connection.execute(f"CREATE VIEW {_identifier(spec.namespace)}.{_identifier(spec.name)} AS {rows}")


def _typed_empty(spec: TableSpec, with_file: bool = False) -> str:
    columns = [f"NULL::{_DUCKDB_TYPES[column.type]} AS {_identifier(column.name)}" for column in spec.columns]
    if with_file:
        columns.append("NULL::VARCHAR AS filename")
    return f"SELECT {', '.join(columns)} WHERE false"


def _registered(connection: duckdb.DuckDBPyConnection, spec: TableSpec, rows: Any) -> str:
    name = f"arrow_{spec.namespace}_{spec.name}"
    connection.register(name, rows)
    columns = [
        f"{_identifier(column.name) if column.name in rows.column_names else 'NULL'}::{_DUCKDB_TYPES[column.type]} "
        f"AS {_identifier(column.name)}"
        for column in spec.columns
    ]
    return f"SELECT {', '.join(columns)} FROM {name}"  # noqa: S608 - contracts' names, quoted


def _field_map(spec: TableSpec, table: Table) -> str:
    schema = table.schema()
    fields = [
        f"{schema.find_field(column.name).field_id}: "
        f"{{name: {_literal(column.name)}, type: {_literal(_DUCKDB_TYPES[column.type])}, default_value: NULL}}"
        for column in spec.columns
    ]
    return f"MAP {{{', '.join(fields)}}}"


def _newest_by_position(history: list[Version]) -> dict[str, Version]:
    """From each position to the newest version that holds its rows; positions newest first."""
    newest: dict[str, Version] = {}
    waiting: Version | None = None  # the newest of a run of snapshots whose position is yet to be met
    for version in history:
        waiting = waiting or version
        if version.position is not None or version.parent_id is None:
            newest.setdefault(json.dumps(version.position, sort_keys=True), waiting)
            waiting = None
    return newest


def _fetch(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    with connection:
        while True:
            with _one_line_errors():
                rows = connection.fetchmany(FETCH_ROWS)
            if not rows:
                return
            yield from rows


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.IOException as error:
        raise LakeError(
            f"{_first_line(error)}; if a file is gone, the lake was maintained meanwhile: run it again; if it stays so, {REMEDY}"
        ) from None
    except duckdb.Error as error:
        raise StatementError(_first_line(error)) from None


def _first_line(error: duckdb.Error) -> str:
    # DuckDB repeats the statement with a marker after an empty line; what is before it says it all.
    return " ".join(str(error).split("\n\nLINE ")[0].split())


def _unique(names: list[str]) -> tuple[str, ...]:
    taken: dict[str, None] = {}
    for name in names:
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken[candidate] = None
    return tuple(taken)


def _glob_literal(path: str) -> str:
    """``path`` for functions that take glob patterns: its own wildcards stand for themselves."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
