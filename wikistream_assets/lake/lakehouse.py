"""The lakehouse: Iceberg tables, their snapshots, tags and branches, through PyIceberg and without a JVM.

All state that a restart needs lives here: what a table has consumed stands in its snapshots' summaries, what has been
audited is a tag, what waits for its audit is a branch. Spark writes data; everything that only moves a reference or reads
a summary is done by this class in milliseconds.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import wraps
from hashlib import sha256
from typing import Any, Final, ParamSpec, TypeVar

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    RemoveSnapshotRefUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy import CursorResult, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from wikistream_assets.exceptions import BranchOutdatedError, ClockBehindError, LakeError
from wikistream_assets.lake.state import (
    AUDITING_KEY,
    CONTRACTS_KEY,
    KAFKA_LOSSES_KEY,
    MAIN,
    MASKED_KEY,
    Attempted,
    Masked,
    States,
    TableState,
    clock_behind,
    summary_properties,
)
from wikistream_assets.streams.registry import ALL_TABLES, TABLE_BY_IDENTIFIER
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets.tables.spec import Column, ColumnType, TableSpec

CATALOG_NAME: Final = "wikistream"

_P = ParamSpec("_P")
_R = TypeVar("_R")

_ICEBERG_TYPES: Final[dict[ColumnType, IcebergType]] = {
    "string": StringType(),
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "boolean": BooleanType(),
    "timestamp": TimestamptzType(),
}

_WIDENINGS: Final[frozenset[tuple[IcebergType, IcebergType]]] = frozenset({(IntegerType(), LongType())})
"""Changes of a column's type that Iceberg makes without rewriting a file, old values staying what they are."""

TABLE_PROPERTIES: Final[dict[str, str]] = {
    "format-version": "2",
    "write.format.default": "parquet",
    "write.parquet.compression-codec": "zstd",
    "write.target-file-size-bytes": str(256 * 1024 * 1024),
    "write.delete.mode": "merge-on-read",
    "write.update.mode": "merge-on-read",
    "write.merge.mode": "merge-on-read",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    # Payloads do not repeat: a dictionary is built for nothing until it is full. Names of wikis, types and kinds fit this one.
    "write.parquet.dict-size-bytes": str(64 * 1024),
    # A batch touches few partitions and runs in two tasks: a shuffle to save a handful of files costs more than it gives.
    "write.distribution-mode": "none",
    "write.spark.fanout.enabled": "true",
}

_NOTED_ON: Final = QUALITY_RESULTS.namespace
"""The namespace whose properties say which contracts the lake was made for: that of the audit trail, which every lake has."""

_CONTRACTS: Final = sha256(
    json.dumps(
        [(spec.identifier, [(c.name, c.type) for c in spec.columns], spec.partition_by) for spec in ALL_TABLES]
    ).encode()
).hexdigest()

REMEDY: Final = "restore a backup with 'wikistream restore', or start a new home (WIKISTREAM_HOME)"

_FILE: Final = re.compile(r"(?<!\w)/[^\n]*?/warehouse/[^\n]*?\.(?:metadata\.json|avro|parquet)")

# Concurrent commits (a tag while the stream appends) lose the catalog's compare-and-swap and are simply tried again.
_try_again = retry(
    retry=retry_if_exception_type(CommitFailedException),
    stop=stop_after_attempt(8),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)


def _commits(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a method that commits try again when another commit was faster; a catalog that takes nothing is one line."""
    tried = _try_again(method)

    @wraps(method)
    def committing(*arguments: _P.args, **keywords: _P.kwargs) -> _R:
        try:
            return tried(*arguments, **keywords)
        except OperationalError as error:
            raise LakeError(
                f"the catalog cannot be written ({error.orig}): check its rights, the disk, and who else holds it; what was "
                "committed is whole, start again to go on"
            ) from error

    return committing


@dataclass(frozen=True)
class Commit:
    """What is to change about one table, and what must still hold of it then."""

    table: Table
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]


class LocalCatalog(SqlCatalog):
    """PyIceberg's, which commits several tables as one, and refuses to commit with the time of a clock that was set back.

    PyIceberg would commit with such a time, and no Spark could read the table from then on.
    """

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        _refuse_clock_behind(table)
        return super().commit_table(table, requirements, updates)

    def commit_together(self, commits: Sequence[Commit], amid: Callable[[], None] = lambda: None) -> None:
        """Commit all or nothing: the new metadata of all tables is written first, then one transaction moves all pointers.

        Each pointer is compared and set, as PyIceberg does for one table. Metadata files of a commit that failed, or of a process
        that was killed before the transaction, are orphans that maintenance deletes.

        Args:
            amid: called between the two.

        Raises:
            CommitFailedException: a requirement does not hold, or another process has committed to a table since it was loaded.
        """
        staged = []
        for commit in commits:
            _refuse_clock_behind(commit.table)
            name = commit.table.name()
            new = self._update_and_stage_table(commit.table, name, commit.requirements, commit.updates)
            self._write_metadata(new.metadata, new.io, new.metadata_location)
            staged.append((commit.table, new))
        amid()
        with Session(self.engine) as session:
            for old, new in staged:
                *namespace, table_name = old.name()
                moved: CursorResult[Any] = session.execute(  # type: ignore[assignment]  # of an UPDATE it is one
                    update(IcebergTables)
                    .where(
                        IcebergTables.catalog_name == self.name,
                        IcebergTables.table_namespace == Catalog.namespace_to_string(tuple(namespace)),
                        IcebergTables.table_name == table_name,
                        IcebergTables.metadata_location == old.metadata_location,
                    )
                    .values(metadata_location=new.metadata_location, previous_metadata_location=old.metadata_location)
                )
                if moved.rowcount != 1:  # the session is rolled back: no pointer has moved
                    raise CommitFailedException(f"{'.'.join(old.name())} has been updated by another process")
            session.commit()
        for old, new in staged:
            self._delete_old_metadata(old.io, old.metadata, new.metadata)


def _refuse_clock_behind(table: Table) -> None:
    name = ".".join(table.name())
    if told := clock_behind(name, table.metadata.last_updated_ms, datetime.now(UTC)):
        raise ClockBehindError(told)


class Lakehouse:
    """The tables of one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    # ---- tables -------------------------------------------------------------------------------------------------------

    def ensure_tables(self) -> None:
        """Create missing namespaces and tables, add columns that a contract has gained. A second call changes nothing.

        A lake that was made for just these contracts says so, and then no table is loaded for it.

        Raises:
            LakeError: a table is of a contract that this version cannot read and write whole.
        """
        namespaces = {name[0] for name in self.catalog.list_namespaces()}
        if _NOTED_ON in namespaces and self._made_for() == _CONTRACTS:
            return
        for spec in ALL_TABLES:
            if spec.namespace not in namespaces:
                self.catalog.create_namespace_if_not_exists(spec.namespace)
                namespaces.add(spec.namespace)
            if (spec.namespace, spec.name) not in self.catalog.list_tables(spec.namespace):
                self._create(spec)
            self._complete(spec)
        self._note_made_for()

    def _made_for(self) -> str | None:
        """The contracts that all tables were last completed for."""
        noted: str | None = self.catalog.load_namespace_properties(_NOTED_ON).get(CONTRACTS_KEY)
        return noted

    @_commits
    def _note_made_for(self) -> None:
        """Last, so that a process killed on the way leaves no note."""
        try:
            self.catalog.update_namespace_properties(_NOTED_ON, updates={CONTRACTS_KEY: _CONTRACTS})
        except IntegrityError:
            if self._made_for() != _CONTRACTS:  # else another process has opened the lake meanwhile
                raise

    def _create(self, spec: TableSpec) -> None:
        fields = [
            NestedField(number, column.name, _ICEBERG_TYPES[column.type], required=False, doc=column.comment)
            for number, column in enumerate(spec.columns, start=1)
        ]
        identifiers = {field.name: field.field_id for field in fields}
        partitions = [
            PartitionField(identifiers[name], 1000 + number, IdentityTransform(), name)
            for number, name in enumerate(spec.partition_by)
        ]
        self.catalog.create_table_if_not_exists(
            spec.identifier,
            Schema(*fields),
            partition_spec=PartitionSpec(*partitions),
            properties={**TABLE_PROPERTIES, "comment": spec.description},
        )

    @_commits
    def _complete(self, spec: TableSpec) -> None:
        """Bring the table to its contract: columns it has gained, and what a process killed while creating it has left out.

        Raises:
            LakeError: the table differs from the contract in a way that would lose or misread data.
        """
        table = self.table(spec)
        _refuse_incompatible(spec, table)
        fields = {field.name: field.field_type for field in table.schema().fields}
        missing = [column for column in spec.columns if column.name not in fields]
        wider = [column for column in spec.columns if column.name in fields and fields[column.name] != _type(column)]
        if missing or wider:
            with table.update_schema() as update:
                for column in missing:
                    update.add_column(column.name, _type(column), doc=column.comment)
                for column in wider:
                    update.update_column(column.name, _type(column))
        if table.current_snapshot() is None:
            # An empty first snapshot: branches, tags and "the range after" then always have something to stand on.
            table.append(table.schema().as_arrow().empty_table())

    def table(self, spec: TableSpec) -> Table:
        """The table as it is now, freshly loaded from the catalog.

        Raises:
            LakeError: the catalog does not name it, or its metadata file is missing or damaged.
        """
        try:
            return self.catalog.load_table(spec.identifier)
        except NoSuchTableError:
            cause = "the catalog does not name it"
        except FileNotFoundError as error:
            cause = f"{named_file(error)} is missing"
        except OSError as error:
            cause = f"{named_file(error)} cannot be read"
        except (ValueError, ValidationError):  # no JSON, or not what Iceberg writes
            cause = "its metadata file is damaged"
        raise LakeError(f"{spec.identifier} cannot be read, {cause}: {REMEDY}")

    @_commits
    def append(
        self,
        spec: TableSpec,
        rows: pa.Table | None = None,
        properties: Mapping[str, str] | None = None,
        branch: str = MAIN,
    ) -> None:
        """Append ``rows`` in one snapshot; no rows make a snapshot that only carries ``properties``.

        For small tables and for bare positions; Spark writes data.
        """
        table = self.table(spec)
        table.append(
            table.schema().as_arrow().empty_table() if rows is None else rows,
            snapshot_properties=dict(properties or {}),
            branch=branch,
        )

    @_commits
    def set_property(self, spec: TableSpec, name: str, value: str) -> None:
        """Set the table property ``name``; makes no snapshot."""
        with self.table(spec).transaction() as transaction:
            transaction.set_properties({name: value})

    def note_attempt(self, spec: TableSpec, attempted: Attempted) -> None:
        """Note on the first table of a publication, before its branches are made, which range is audited and where."""
        self.set_property(spec, AUDITING_KEY, attempted.as_json())

    def kafka_losses(self, letters: TableSpec) -> list[str]:
        """When Kafka's data was lost, ISO 8601, oldest first: letters from before and after may stand at the same offset."""
        return list(json.loads(self.table(letters).properties.get(KAFKA_LOSSES_KEY, "[]")))

    def add_kafka_loss(self, letters: TableSpec, at: datetime) -> None:
        """Note that Kafka's data is lost: what is read from now on has offsets that begin again."""
        self.set_property(letters, KAFKA_LOSSES_KEY, json.dumps([*self.kafka_losses(letters), at.isoformat()]))

    @_commits
    def mark_masked(self, spec: TableSpec, mark: Masked) -> None:
        """Append a snapshot without rows that carries main's position on: what is older shows what has been masked since.

        Args:
            mark: kept as a table property, by the same commit.
        """
        table = self.table(spec)
        newest = TableState.of(spec, table).newest_position()
        properties = {MASKED_KEY: mark.before}
        if newest is not None and newest.position is not None:
            counts = newest.counts or {}
            nothing = {name: dict.fromkeys(value, 0) if name == "batch" else value for name, value in counts.items()}
            properties |= summary_properties(newest.position, nothing)
        transaction = table.transaction()
        transaction.append(table.schema().as_arrow().empty_table(), snapshot_properties=properties)
        transaction.set_properties({MASKED_KEY: json.dumps(asdict(mark))})
        # If another commit came since the position was looked up, the whole must be done again. PyIceberg would put the snapshot
        # with the old position on top of the new one; without producers it has nothing to put there, and refuses.
        transaction._snapshot_producers.clear()
        transaction.commit_transaction()

    def forget_masked(self, spec: TableSpec) -> None:
        """Take no row of ``spec`` for masked any more: main goes back behind a mark."""
        self.set_property(spec, MASKED_KEY, "{}")

    # ---- states -------------------------------------------------------------------------------------------------------

    def state(self, spec: TableSpec) -> TableState:
        """The table as it is now."""
        return TableState.of(spec, self.table(spec))

    def look(self) -> States:
        """One look at the lake: what is asked of it sees one state of each table."""
        return States(self.table)

    # ---- references ---------------------------------------------------------------------------------------------------

    @_commits
    def tag(self, spec: TableSpec, name: str, snapshot_id: int) -> None:
        """Point tag ``name`` at ``snapshot_id``, moving it if it exists."""
        self.table(spec).manage_snapshots().create_tag(snapshot_id, name).commit()

    @_commits
    def drop_ref(self, spec: TableSpec, name: str) -> None:
        """Remove the tag or branch ``name`` if it exists."""
        table = self.table(spec)
        if name in table.metadata.refs:
            manager = table.manage_snapshots()
            kind = table.metadata.refs[name].snapshot_ref_type
            (manager.remove_tag(name) if kind == "tag" else manager.remove_branch(name)).commit()

    @_commits
    def create_branch(
        self, spec: TableSpec, branch: str, at: int | None = None, instead_of: Collection[str] = ()
    ) -> None:
        """Make ``branch``, or move it, and drop the branches ``instead_of`` which it is made.

        Args:
            at: the snapshot to make it at; main's head if it is not given.
        """
        table = self.table(spec)
        state, manager = TableState.of(spec, table), table.manage_snapshots()
        for name in (set(instead_of) & state.refs.keys()) - {branch}:
            manager = manager.remove_branch(name)
        manager.create_branch(at or state.head_id(), branch).commit()

    @_commits
    def advance(self, spec: TableSpec, branch: str, base: int) -> None:
        """Move main from ``base`` to the head of ``branch``, and drop all branches of batches: they are overtaken.

        Raises:
            BranchOutdatedError: as ``publish``.
        """
        table = self.table(spec)
        state = TableState.of(spec, table)
        self._carry_out(_forwarded(table, state, branch, base, state.batch_branches))

    def publish(
        self,
        specs: Sequence[TableSpec],
        branch: str,
        bases: Mapping[TableSpec, int] | None = None,
        amid: Callable[[], None] = lambda: None,
    ) -> None:
        """Move main of each table to the head of its ``branch``: as one where the catalog can, else one after the other.

        Each table's audit branches go with it: main has moved, and none of them can be published any more.

        Args:
            bases: the snapshots that the branches were made at, and that main must still be at; if they are not given, it is
                enough that the branch goes on from main.
            amid: called between the new metadata and the pointers to it, or after the first of the tables.

        Raises:
            BranchOutdatedError: a table has no such branch any more, or its main has moved: someone else has committed meanwhile.
        """
        bases = bases or {}
        if isinstance(self.catalog, LocalCatalog):
            self._publish_together(self.catalog, specs, branch, bases, amid)
            return
        for spec in specs:
            self._to_publish(spec, branch, bases)  # all are refused, or none, as far as can be told
        for number, spec in enumerate(specs):
            if number == 1:
                amid()
            self._publish_alone(spec, branch, bases)

    @_commits
    def _publish_together(
        self,
        catalog: LocalCatalog,
        specs: Sequence[TableSpec],
        branch: str,
        bases: Mapping[TableSpec, int],
        amid: Callable[[], None],
    ) -> None:
        catalog.commit_together([self._to_publish(spec, branch, bases) for spec in specs], amid)

    @_commits
    def _publish_alone(self, spec: TableSpec, branch: str, bases: Mapping[TableSpec, int]) -> None:
        self._carry_out(self._to_publish(spec, branch, bases))

    def _to_publish(self, spec: TableSpec, branch: str, bases: Mapping[TableSpec, int]) -> Commit:
        table = self.table(spec)
        state = TableState.of(spec, table)
        return _forwarded(table, state, branch, bases.get(spec), state.audit_branches)

    def _carry_out(self, commit: Commit) -> None:
        done = self.catalog.commit_table(commit.table, commit.requirements, commit.updates)
        self.catalog._delete_old_metadata(commit.table.io, commit.table.metadata, done.metadata)

    @_commits
    def reset_main(self, spec: TableSpec, snapshot_id: int) -> None:
        """Point main at ``snapshot_id``, which must be a snapshot of the table.

        If rows come back as they were before they lost their names, none of the table's is taken for masked any more.
        """
        table = self.table(spec)
        state = TableState.of(spec, table)
        if any(version.masks for version in state.between(snapshot_id, state.head_id())):
            self.forget_masked(spec)
            table = self.table(spec)
        table.manage_snapshots().set_current_snapshot(snapshot_id=snapshot_id).commit()


def _forwarded(table: Table, state: TableState, branch: str, base: int | None, dropped: Iterable[str]) -> Commit:
    """Main of the table moved from ``base`` to the head of ``branch``, and the branches ``dropped``."""
    name, head, main = state.spec.identifier, state.head(branch), state.head_id()
    if head is None:
        raise BranchOutdatedError(f"{name}: {branch!r} was overtaken by another publication and is gone")
    goes_on = any(version.snapshot_id == main for version in state.history(head.snapshot_id))
    if not goes_on or base not in (None, main):
        raise BranchOutdatedError(f"{name}: main has moved since {branch!r} was made; build it again")
    return Commit(
        table,
        (
            AssertRefSnapshotId(ref=MAIN, snapshot_id=main),
            AssertRefSnapshotId(ref=branch, snapshot_id=head.snapshot_id),
        ),
        (
            SetSnapshotRefUpdate(
                ref_name=MAIN,
                type="branch",
                snapshot_id=head.snapshot_id,
                max_ref_age_ms=None,
                max_snapshot_age_ms=None,
                min_snapshots_to_keep=None,
            ),
            *(RemoveSnapshotRefUpdate(ref_name=overtaken) for overtaken in dropped),
        ),
    )


def named_file(error: Exception | str) -> str:
    """The file of the lake that an error of PyIceberg, Spark or DuckDB names, or else all that it says, in one line."""
    found = _FILE.search(str(error))
    return f"/{found[0].lstrip('/')}" if found else " ".join(str(error).split())


def _type(column: Column) -> IcebergType:
    return _ICEBERG_TYPES[column.type]


def _refuse_incompatible(spec: TableSpec, table: Table) -> None:
    """Refuse a table that this contract cannot read and write whole: nothing in it has been changed yet."""
    contract = {column.name: _type(column) for column in spec.columns}
    differences = []
    for field in table.schema().fields:
        wanted = contract.get(field.name)
        if wanted is None:
            differences.append(f"column {field.name} is unknown here")
        elif wanted != field.field_type and (field.field_type, wanted) not in _WIDENINGS:
            differences.append(f"column {field.name} is {field.field_type} there and {wanted} here")
    partitions = tuple(field.name for field in table.spec().fields)
    if table.current_snapshot() is not None and partitions != spec.partition_by:
        differences.append(f"it is partitioned by {', '.join(partitions) or 'nothing'}")
    if differences:
        raise LakeError(
            f"{spec.identifier} was made by another version of WikiStream ({'; '.join(differences)}): run that version "
            "('git pull && make clean' gets the newest), or set WIKISTREAM_HOME to a new folder; nothing was changed"
        )


def matching(*, since: tuple[str, str] | None = None, **values: str | int) -> BooleanExpression:
    """A scan filter: each named column equals its value, and the column ``since[0]`` is ``since[1]`` or later."""
    condition: BooleanExpression = AlwaysTrue()
    # mypy misreads the constructors of PyIceberg's expressions, which are pydantic models too.
    for name, value in values.items():
        condition = And(condition, EqualTo(name, value))  # type: ignore[call-arg]
    if since is not None:
        condition = And(condition, GreaterThanOrEqual(*since))  # type: ignore[call-arg]
    return condition


def table_spec(identifier: str) -> TableSpec:
    """The contract of ``namespace.name``.

    Raises:
        LakeError: there is no such table; names the known ones.
    """
    try:
        return TABLE_BY_IDENTIFIER[identifier]
    except KeyError:
        raise LakeError(f"no table {identifier!r}; known: {', '.join(sorted(TABLE_BY_IDENTIFIER))}") from None
