"""Which snapshots of a table must stay: everything that a reader, a tag, a branch or a restart may still go back to.

Reading "the snapshots after X" needs X, the head, and every snapshot between the two. So what stays of main is always one
unbroken stretch, from its head back to the oldest snapshot that somebody needs.
"""

from dataclasses import dataclass
from itertools import takewhile

from wikistream_assets.engine import gate
from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.engine.gold import Position
from wikistream_assets.engine.silver import consumed
from wikistream_assets.lake.query import common_gold_versions
from wikistream_assets.lake.state import MAIN, States, TableState, Version
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, QUARANTINE, RAW_EVENTS
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
    """How far the tables downstream have read ``spec``: the oldest kept snapshot for one that has read nothing yet."""
    first = states[spec].first
    if spec is RAW_EVENTS:
        return {consumed(states[reader].newest_position()) or first for reader in (CLEANED_EVENTS, QUARANTINE)}
    if spec is CLEANED_EVENTS:
        positions = [Position.of(states[reader].newest_position()) for reader in GOLD_TABLES]
        return {position.silver if position else first for position in positions}
    if spec is QUARANTINE:
        # If a run dies between the two publications, the quarantine is set back to where Silver stands.
        position = consumed(states[CLEANED_EVENTS].newest_position())
        return {next((v.snapshot_id for v in states[spec].history() if v.position and consumed(v) == position), first)}
    if spec in GOLD_TABLES:
        return {common_gold_versions(states)[spec.identifier].snapshot_id}
    return set()


def _place_for_ratios(state: TableState, main: list[Version], required: int) -> int:
    """A ratio check looks at rows before its range until it has enough of them; only gates with a range do."""
    if state.spec not in (RAW_EVENTS, CLEANED_EVENTS):
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
