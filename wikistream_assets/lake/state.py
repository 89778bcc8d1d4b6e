"""A table as it was at one look: its references, snapshots and properties, loaded together and never changing.

What is decided about a table (what is pending, what must stay, what is due) is a function of states, so that one decision sees
one state of each table, pays for one load of each, and can be tested without a lake.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import takewhile
from typing import Any, Final

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from wikistream_assets.exceptions import LakeError
from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria
from wikistream_assets.tables.spec import TableSpec

MAIN: Final = "main"
AUDIT_PREFIX: Final = "audit_"
BATCH_PREFIX: Final = "batch_"
AUDITED_TAG: Final = "audited"
POSITION_KEY: Final = "wikistream.position"
COUNTS_KEY: Final = "wikistream.counts"
CRITERIA_KEY: Final = "wikistream.criteria"
RUN_KEY: Final = "wikistream.run_id"
ATTEMPT_KEY: Final = "wikistream.attempt"
MASKED_KEY: Final = "wikistream.masked"
TOPICS_KEY: Final = "wikistream.topics"
AUDITING_KEY: Final = "wikistream.auditing"
CONTRACTS_KEY: Final = "wikistream.contracts"
KAFKA_LOSSES_KEY: Final = "wikistream.kafka_losses"

_FORMER_AUDIT_BRANCH: Final = "audit"
"""What lakes of before ADR 23 call the one audit branch they have."""

CLOCK_TOLERANCE_SECONDS: Final = 60
"""How far a commit's time may lie before the table's last one: beyond it Iceberg's Java refuses to write, and to read."""


@dataclass(frozen=True)
class Version:
    """One snapshot of a table, as far as the pipeline cares.

    Attributes:
        snapshot_id: Iceberg snapshot id.
        parent_id: the snapshot it was made from; None for the first.
        timestamp_ms: commit time, milliseconds since the epoch.
        operation: append, overwrite, replace or delete.
        added_records: rows the snapshot added; none if it only wrote rows anew (compaction).
        total_records: rows in the table as of the snapshot.
        position: parsed ``wikistream.position``, or None if the snapshot carries none.
        counts: parsed ``wikistream.counts``, or None.
        masks: whether the snapshot hides names in rows that older snapshots still show.
        run_id: the run that made it, if it said so.
        attempt: the branch of the attempt that made it, if it said so: tables that were published together have it in common.
    """

    snapshot_id: int
    parent_id: int | None
    timestamp_ms: int
    operation: str
    added_records: int
    total_records: int
    position: dict[str, Any] | None
    counts: dict[str, Any] | None
    masks: bool = False
    run_id: str | None = None
    attempt: str | None = None

    @property
    def committed_at(self) -> datetime:
        """Commit time, UTC."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)


@dataclass(frozen=True)
class Attempted:
    """What the first table of a publication notes about the newest attempt at it.

    Attributes:
        start / end: the upstream snapshots that were audited are those after ``start`` up to ``end``.
        branch: where the attempt has built; each has its own, so that no run meets another's rows.
    """

    start: int
    end: int
    branch: str = _FORMER_AUDIT_BRANCH

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Masked:
    """How far a table is masked: all rows of the dates before ``before``, but for two kinds that are still to be looked at.

    Attributes:
        before: yyyy-MM-dd; the mark never goes back.
        sequence: rows that came after this sequence number are not masked yet ..
        waiting: .. nor are some rows of these dates.
    """

    before: str = ""
    sequence: int = 0
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableState:
    """One table at one look.

    Attributes:
        spec: its contract.
        refs: the snapshot id that each branch and tag points to.
        snapshots: all that are kept, by id.
        properties: of the table.
        updated_ms: its newest commit, milliseconds since the epoch.
    """

    spec: TableSpec
    refs: Mapping[str, int]
    snapshots: Mapping[int, Snapshot]
    properties: Mapping[str, str]
    updated_ms: int

    @classmethod
    def of(cls, spec: TableSpec, table: Table) -> "TableState":
        """The state of a loaded table."""
        metadata = table.metadata
        return cls(
            spec,
            {name: ref.snapshot_id for name, ref in metadata.refs.items()},
            {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots},
            metadata.properties,
            metadata.last_updated_ms,
        )

    def head(self, ref: str = MAIN) -> Version | None:
        """The snapshot that ``ref`` (a branch or a tag) points to, or None if there is no such ref."""
        return version_of(self.snapshots[self.refs[ref]]) if ref in self.refs else None

    def head_id(self, ref: str = MAIN) -> int:
        """The id of the snapshot that ``ref`` points to.

        Raises:
            LakeError: there is no such ref: someone else has dropped it, or the table was not made by this project.
        """
        if ref not in self.refs:
            raise LakeError(
                f"{self.spec.identifier} has no {ref!r} any more: run the job again, or 'wikistream restore' a backup"
            )
        return self.refs[ref]

    def history(self, ref: str | int = MAIN) -> Iterator[Version]:
        """The snapshot ``ref`` (a name or a snapshot id) points to and its ancestors, newest first, as far as they are kept."""
        number = self.refs.get(ref) if isinstance(ref, str) else ref
        while (snapshot := self.snapshots.get(number) if number else None) is not None:
            yield version_of(snapshot)
            number = snapshot.parent_snapshot_id

    def between(self, start: int, end: int) -> Iterator[Version]:
        """The snapshots after ``start`` up to and including ``end``, newest first."""
        return takewhile(lambda version: version.snapshot_id != start, self.history(end))

    @property
    def first(self) -> int:
        """The oldest kept snapshot of main: what the first range starts after. It is empty, made with the table."""
        *_, oldest = self.history()
        return oldest.snapshot_id

    def newest_position(self, ref: str | int = MAIN) -> Version | None:
        """The newest ancestor of ``ref`` that carries a position (compaction's ``replace`` snapshots carry none)."""
        return next((version for version in self.history(ref) if version.position is not None), None)

    @property
    def newest_batch(self) -> Version | None:
        """The newest snapshot of main that moved the position: masking's mark has one too, but only carries it on.

        None before the first, and when maintenance has forgotten all that lies before a mark.
        """
        return next((v for v in self.history() if v.position is not None and not v.masks), None)

    @cached_property
    def position(self) -> dict[str, Any]:
        """How far the table has read: the newest position on main; empty before the first."""
        newest = self.newest_position()
        return (newest and newest.position) or {}

    @property
    def attempted(self) -> Attempted | None:
        """The newest attempt at the publication that this table leads; None before the first."""
        noted = self.properties.get(AUDITING_KEY)
        return Attempted(**json.loads(noted)) if noted else None

    def pinned_end(self, start: int) -> int | None:
        """Where the range ends that begins at ``start`` and was audited before; None if there was none.

        After its publication the next range has another start, so the note needs no end of its own. Main set back to that start
        meets the same range again, and so the decisions on it.
        """
        attempted = self.attempted
        return attempted.end if attempted and attempted.start == start else None

    @property
    def audit_branches(self) -> tuple[str, ...]:
        """The branches of attempts that were not published: blocked, killed, or still at work."""
        return tuple(name for name in self.refs if name.startswith(AUDIT_PREFIX) or name == _FORMER_AUDIT_BRANCH)

    @property
    def batch_branches(self) -> tuple[str, ...]:
        """The branches of batches that are being written, or were when their writer died."""
        return tuple(name for name in self.refs if name.startswith(BATCH_PREFIX))

    def published_by(self) -> str:
        """The branch of the attempt that main's position was published by."""
        of_position = (v.attempt for v in self.history() if v.position == self.position and v.attempt)
        return next(of_position, _FORMER_AUDIT_BRANCH)

    @property
    def waiting(self) -> str | None:
        """The branch on which the newest attempt has left its rows, unpublished; None if there is none."""
        noted = self.attempted.branch if self.attempted else _FORMER_AUDIT_BRANCH
        return noted if noted in self.refs else None

    @property
    def masked(self) -> Masked:
        """How far the table is masked; as ``Masked()`` says at first."""
        known = json.loads(self.properties.get(MASKED_KEY, "{}"))
        return Masked(**known | {"waiting": tuple(known.get("waiting", ()))})

    def clock_behind(self, now: datetime) -> str | None:
        """By how much the clock is behind the newest commit, in one line; None if a commit is possible at ``now``."""
        return clock_behind(self.spec.identifier, self.updated_ms, now)


class States:
    """One look at a lake: each table is loaded when it is first asked for, and once."""

    def __init__(self, load: Callable[[TableSpec], Table]) -> None:
        self._load = load
        self._tables: dict[str, Table] = {}
        self._states: dict[str, TableState] = {}

    @classmethod
    def of(cls, *states: TableState) -> "States":
        """A look at these tables, which needs no lake."""

        def absent(spec: TableSpec) -> Table:
            raise LakeError(f"{spec.identifier} is not among the tables looked at")

        look = cls(absent)
        look._states = {state.spec.identifier: state for state in states}
        return look

    def table(self, spec: TableSpec) -> Table:
        """The table as it was loaded, to plan scans on."""
        if spec.identifier not in self._tables:
            self._tables[spec.identifier] = self._load(spec)
        return self._tables[spec.identifier]

    def __getitem__(self, spec: TableSpec) -> TableState:
        if spec.identifier not in self._states:
            self._states[spec.identifier] = TableState.of(spec, self.table(spec))
        return self._states[spec.identifier]


def clock_is_behind(states: Iterable[TableState], now: datetime) -> str | None:
    """By how much the clock is behind the newest commit of the tables, in one line; None if a commit is possible at ``now``."""
    return max(states, key=lambda state: state.updated_ms).clock_behind(now)


def clock_behind(table: str, updated_ms: int, now: datetime) -> str | None:
    """As ``TableState.clock_behind``, of the table called ``table``."""
    newest = datetime.fromtimestamp(updated_ms / 1000, UTC)
    seconds = (newest - now).total_seconds()
    if seconds <= CLOCK_TOLERANCE_SECONDS:
        return None
    return (
        f"the clock is {seconds:.0f} s behind the newest commit of {table} ({newest:%Y-%m-%d %H:%M:%S} UTC): "
        f"set it right, or wait until it has come to within {CLOCK_TOLERANCE_SECONDS} s of that; nothing is committed before"
    )


def summary_properties(
    position: Mapping[str, Any],
    counts: Mapping[str, Any],
    criteria: Criteria = DEFAULT_CRITERIA,
    *,
    run_id: str | None = None,
    attempt: str | None = None,
) -> dict[str, str]:
    """Snapshot summary entries that make position, counts and data one commit. Keys sorted: equal content, equal text.

    What ``criteria`` change is one more, so that a reader can tell how a version was classified, and so are the run that makes it
    and the branch of its attempt.
    """
    entries: dict[str, Mapping[str, Any]] = {POSITION_KEY: position, COUNTS_KEY: counts}
    if criteria.changed:
        entries[CRITERIA_KEY] = criteria.changed
    made_by = {RUN_KEY: run_id, ATTEMPT_KEY: attempt}
    return {key: json.dumps(value, sort_keys=True) for key, value in entries.items()} | {
        key: value for key, value in made_by.items() if value
    }


def version_of(snapshot: Snapshot) -> Version:
    """What the pipeline cares about in a snapshot."""
    summary = snapshot.summary
    properties = summary.additional_properties if summary else {}
    position, counts = properties.get(POSITION_KEY), properties.get(COUNTS_KEY)
    operation = summary.operation if summary else Operation.APPEND
    return Version(
        snapshot_id=snapshot.snapshot_id,
        parent_id=snapshot.parent_snapshot_id,
        timestamp_ms=snapshot.timestamp_ms,
        operation=operation.value,
        added_records=int(properties.get("added-records", 0)) if operation is not Operation.REPLACE else 0,
        total_records=int(properties.get("total-records", 0)),
        position=json.loads(position) if position else None,
        counts=json.loads(counts) if counts else None,
        masks=MASKED_KEY in properties,
        run_id=properties.get(RUN_KEY),
        attempt=properties.get(ATTEMPT_KEY),
    )


def consumed(version: Version | None, upstream: TableSpec) -> int | None:
    """The snapshot of ``upstream`` up to which a version was made, or None if it was made from none."""
    return version.position[upstream.identifier] if version and version.position else None
