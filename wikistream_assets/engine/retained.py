"""Which snapshots of a table must stay: everything that a reader, a tag, a branch or a restart may still go back to.

Reading "the snapshots after X" needs X, the head, and every snapshot between the two. So what stays of main is always one
unbroken stretch, from its head back to the oldest snapshot that somebody needs.
"""

from dataclasses import dataclass
from itertools import takewhile

from wikistream_assets.engine import gate
from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.engine.decisions import rejectable
from wikistream_assets.lake.query import common_versions
from wikistream_assets.lake.state import MAIN, States, TableState, Version, consumed
from wikistream_assets.streams.registry import STREAMS, stream_of
from wikistream_assets.tables.dq_audit import AUDIT_TRAIL_TABLES
from wikistream_assets.tables.spec import TableSpec


@dataclass(frozen=True)
class Limits:
    """How much history is kept that nobody needs for going on: to look back, to compare, to roll back.

    Attributes:
        younger_than_ms: snapshots committed at or after this time (milliseconds since the epoch) stay ..
        most: .. but no more than this many: each commit writes all of them down, each reader parses all of them.
        least: this many stay whatever their age.
    """

    younger_than_ms: int
    most: int
    least: int


def expirable(states: States, spec: TableSpec, limits: Limits) -> list[int]:
    """The snapshots of ``spec`` that nobody needs and that are beyond ``limits``, oldest first."""
    state = states[spec]
    main = list(state.history())
    places = {version.snapshot_id: place for place, version in enumerate(main)}
    needed = _needed(states, spec, main)
    if not needed <= places.keys():
        # A position that main does not hold is one of a history that was rolled back; the next run puts it right. Touch nothing.
        return []
    required = max(places[snapshot_id] for snapshot_id in needed)
    # What was masked must be gone from the past too, as soon as no reader stands before it: no other wish for the past counts.
    masked = next((place for place, version in enumerate(main) if version.masks), len(main) - 1)
    wished = max(_place_of_limits(main, limits), _place_for_ratios(state, main, required))
    last = max(required, min(wished, masked))
    kept = {version.snapshot_id for version in main[: last + 1]} | _of_branches(state)
    known = sorted(state.snapshots.values(), key=lambda snapshot: snapshot.sequence_number or 0)
    return [
        snapshot.snapshot_id
        for snapshot in known
        if snapshot.snapshot_id not in kept
        # What hangs on no branch (a dropped audit branch, a head that was rolled back) stays as long as main's own past.
        and (snapshot.snapshot_id in places or snapshot.timestamp_ms < main[last].timestamp_ms)
    ]


def _needed(states: States, spec: TableSpec, main: list[Version]) -> set[int]:
    """Snapshots of main without which some run could not go on."""
    first, head = main[-1].snapshot_id, main[0].snapshot_id
    newest_position = [version.snapshot_id for version in main if version.position is not None][:1]
    needed = {head, *newest_position, *readers_of(states, spec)}
    on_main = {version.snapshot_id for version in main}
    for name in states[spec].refs:
        # A tag, or the snapshot that a branch was made from.
        needed.add(next((v.snapshot_id for v in states[spec].history(name) if v.snapshot_id in on_main), first))
    return needed


def readers_of(states: States, spec: TableSpec) -> set[int]:
    """The snapshots of ``spec`` that others stand on: the tables made from it, and those published together with it.

    The oldest kept snapshot for one that has read nothing yet.
    """
    if spec in AUDIT_TRAIL_TABLES:
        return set()
    stream, first = stream_of(spec), states[spec].first
    read_to = {
        consumed(states[reader].newest_position(), spec) or first
        for publication in stream.made_from(spec)
        for reader in publication.tables
    }
    own = stream.publication_of(spec)
    return read_to | ({common_versions(states, own.tables)[spec.identifier].snapshot_id} if own else set())


def _place_for_ratios(state: TableState, main: list[Version], required: int) -> int:
    """A ratio check looks at rows before its range until it has enough of them; only gates with a range do."""
    if state.spec.identifier not in rejectable(STREAMS.values()):
        return 0
    oldest = main[required].snapshot_id
    start = gate.ratio_range(state, SnapshotRange(oldest, oldest)).start
    return next(place for place, version in enumerate(main) if version.snapshot_id == start)


def _place_of_limits(main: list[Version], limits: Limits) -> int:
    young = sum(version.timestamp_ms >= limits.younger_than_ms for version in main)
    return min(max(min(young, limits.most), limits.least), len(main)) - 1


def _of_branches(state: TableState) -> set[int]:
    """Snapshots that only a branch or a tag leads to: all back to where it left main."""
    main = {version.snapshot_id for version in state.history()}
    return {
        version.snapshot_id
        for name in state.refs
        if name != MAIN
        for version in takewhile(lambda v: v.snapshot_id not in main, state.history(name))
    }
