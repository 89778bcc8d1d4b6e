"""Setting a table back to an earlier snapshot, and with it whatever would no longer agree: one commit a table, no data moved.

    ===========================  ==================================================================================
    table                        what goes back
    ===========================  ==================================================================================
    one of Gold                  all four, to the version made from the same Silver snapshot; the next cycle recomputes
                                 from there
    silver.cleaned_events        Silver, the quarantine to the same place in Bronze, Gold to what was made from then;
                                 the next cycle reads that Bronze again and recomputes the dates it touches
    bronze.raw_events            Bronze, above the audited tag and while no stream runs: its snapshots say what has
                                 been read from Kafka, so the next batch reads those records again
    the others                   nothing: the quarantine goes with Silver, dead letters and the audit trail are kept
    ===========================  ==================================================================================

What waits at the gates of these tables goes too, also where main is at its target already: Gold's is, when its gate has not let
the Silver through that is set back.

Who did it and why is a row of ``dq_audit.gate_decisions``, written first. What was left can be looked at by its snapshot id
until it expires.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from wikistream_assets.engine import ingest
from wikistream_assets.engine.bronze_gate import AUDITING_TAG, gate_lease
from wikistream_assets.engine.context import JobContext, SnapshotRange
from wikistream_assets.engine.decisions import ROLLBACK, Decision, record
from wikistream_assets.engine.failpoints import ROLLBACK_AFTER_DECISION, ROLLBACK_AFTER_TABLE, failpoint
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import AUDITED_TAG, Version, consumed
from wikistream_assets.streams.declaration import RAW_LAYER, Append, Publication, Recompute, Stream
from wikistream_assets.tables.spec import TableSpec


@dataclass(frozen=True)
class Rollback:
    """What is set back.

    Attributes:
        targets: for each table that must agree the snapshot main is set to (``start``) and the head that is left (``end``), in
            the order it is done; both are the same for a table that is there already.
    """

    targets: Mapping[TableSpec, SnapshotRange]

    @property
    def moved(self) -> dict[TableSpec, SnapshotRange]:
        """The targets of the tables that are not there yet."""
        return {spec: target for spec, target in self.targets.items() if not target.empty}

    @property
    def lines(self) -> list[str]:
        return [f"{spec.identifier}: {moved.end} -> {moved.start}" for spec, moved in self.moved.items()]


def roll_back(
    ctx: JobContext,
    spec: TableSpec,
    snapshot_id: int,
    *,
    reason: str,
    decided_by: str,
    dry_run: bool = False,
) -> Rollback:
    """Set ``spec`` back to ``snapshot_id``, and the tables that follow from it.

    Args:
        snapshot_id: an ancestor of main's head.
        reason: why; recorded.
        decided_by: who; recorded.
        dry_run: only say what would be set back.

    Raises:
        LakeError: the table cannot be set back, or not so far.
        WriterBusyError: the stream runs (Bronze only), or maintenance is at work.
        BrokerError: Kafka no longer has what Bronze would have to read again.
    """
    if not reason.strip():
        raise LakeError("a rollback needs a reason: give one with --reason '...'")
    _refuse_what_is_not_set_back(ctx.stream, spec)
    with _nobody_else_at_work(ctx, spec):
        planned = Rollback(_targets(ctx, spec, snapshot_id))
        if not dry_run and planned.moved:
            _carry_out(ctx, planned, reason.strip(), decided_by)
    return planned


def _refuse_what_is_not_set_back(stream: Stream, spec: TableSpec) -> None:
    publication = stream.publication_of(spec)
    if publication is None and spec is not stream.raw:
        raise LakeError(f"{spec.identifier} is not set back: dead letters and the audit trail are never taken back")
    if publication is not None and isinstance(publication.build, Append) and spec is not publication.leader:
        raise LakeError(f"{spec.identifier} is not set back by itself: it goes with {publication.leader.identifier}")


@contextmanager
def _nobody_else_at_work(ctx: JobContext, spec: TableSpec) -> Iterator[None]:
    """Hold the layers whose past must not expire, nor their main move, while ``spec`` is set back."""
    stream, leases = ctx.stream, ctx.leases
    publication = stream.publication_of(spec)
    with ExitStack() as held:
        if publication is not None:
            for each in (*stream.made_from(publication.leader), publication):
                held.enter_context(leases.only_maintenance(stream.lease(each.layer)))
                held.enter_context(leases.main_of(stream.lease(each.layer)))
        source = publication.source if publication is not None else stream.raw
        if isinstance(source, Publication):
            held.enter_context(leases.only_maintenance(stream.lease(source.layer)))
            held.enter_context(leases.main_of(stream.lease(source.layer)))
        else:
            held.enter_context(leases.only_maintenance(stream.lease(RAW_LAYER)))
        if publication is None:
            held.enter_context(leases.hold(stream.raw.identifier))
            held.enter_context(leases.no_jvm(stream.raw.identifier))
            held.enter_context(leases.hold(gate_lease(stream)))
        yield


def _targets(ctx: JobContext, spec: TableSpec, snapshot_id: int) -> dict[TableSpec, SnapshotRange]:
    lake, publication = ctx.lake, ctx.stream.publication_of(spec)
    target = _on_main(lake, spec, snapshot_id)
    if publication is None:
        _require_above_audited(lake, spec, target)
        _require_in_kafka(ctx, target)
        return _from_heads(lake, {spec: target})
    source = consumed(lake.state(spec).newest_position(snapshot_id), publication.upstream)
    if source is None:
        raise _from_nothing(spec, snapshot_id)
    _require_kept(lake, publication.upstream, source)
    if isinstance(publication.build, Recompute):
        return _from_heads(lake, _together(lake, publication, {source}))
    older = {version.snapshot_id for version in lake.state(spec).history(snapshot_id)}
    # What follows first, and of each publication the leading table: whatever is cut off in between, the next runs put the rest
    # right.
    targets: dict[TableSpec, Version] = {}
    for each in ctx.stream.made_from(spec):
        targets |= _together(lake, each, older)
    aside = {other: _made_up_to(lake, other, publication.upstream, source) for other in publication.tables[1:]}
    return _from_heads(lake, {**targets, spec: target, **aside})


def _made_up_to(lake: Lakehouse, spec: TableSpec, upstream: TableSpec, source: int) -> Version:
    """The newest version of ``spec`` that was made from ``upstream`` up to ``source``."""
    for version, made in _made(lake, spec):
        if consumed(made, upstream) == source:
            return version
    raise LakeError(f"{spec.identifier} has no snapshot of that time any more; go back to a newer one")


def _carry_out(ctx: JobContext, planned: Rollback, reason: str, decided_by: str) -> None:
    lake, settings = ctx.lake, ctx.settings
    at = datetime.now(UTC)
    for spec, moved in planned.moved.items():
        identity = uuid.uuid4().hex[:8]
        record(lake, Decision(identity, ROLLBACK, spec.identifier, None, moved, None, reason, decided_by, at))
        failpoint(settings, ROLLBACK_AFTER_DECISION)
        _drop_what_waits(lake, spec, moved.start)
        lake.reset_main(spec, moved.start)
        failpoint(settings, ROLLBACK_AFTER_TABLE)
    for spec in planned.targets.keys() - planned.moved.keys():
        # Its main stays, but what waits on its branch was made from a main upstream that is no more.
        _drop_what_waits(lake, spec, planned.targets[spec].start)


def _drop_what_waits(lake: Lakehouse, spec: TableSpec, target: int) -> None:
    """Drop what waits for its gate, on a branch or under a tag, unless the target holds it: a failed range stays that range."""
    kept = {version.snapshot_id for version in lake.state(spec).history(target)}
    for ref in (*lake.state(spec).audit_branches, AUDITING_TAG):
        waiting = lake.state(spec).head(ref)
        if waiting is not None and waiting.snapshot_id not in kept:
            lake.drop_ref(spec, ref)


def _from_heads(lake: Lakehouse, targets: Mapping[TableSpec, Version]) -> dict[TableSpec, SnapshotRange]:
    """For each table its target, and the head that is left for it."""
    return {
        spec: SnapshotRange(target.snapshot_id, next(lake.state(spec).history()).snapshot_id)
        for spec, target in targets.items()
    }


def _on_main(lake: Lakehouse, spec: TableSpec, snapshot_id: int) -> Version:
    for version in lake.state(spec).history():
        if version.snapshot_id == snapshot_id:
            return version
    raise LakeError(
        f"{spec.identifier}: {snapshot_id} is no ancestor of main, or expired; see: wikistream snapshots {spec.identifier}"
    )


def _made(lake: Lakehouse, spec: TableSpec) -> list[tuple[Version, Version | None]]:
    """Main's versions, newest first, each with the one that holds its position: itself or its nearest ancestor with one."""
    made: list[tuple[Version, Version | None]] = []
    holder = None
    for version in reversed(list(lake.state(spec).history())):
        holder = version if version.position is not None else holder
        made.append((version, holder))
    return made[::-1]


def _together(lake: Lakehouse, publication: Publication, sources: set[int]) -> dict[TableSpec, Version]:
    """The newest versions of a publication's tables that were made from one and the same of these upstream snapshots."""
    newest: dict[TableSpec, dict[str, Version]] = {}
    for spec in publication.tables:
        newest[spec] = {}
        for version, made in _made(lake, spec):
            if made is not None and consumed(made, publication.upstream) in sources:
                newest[spec].setdefault(json.dumps(made.position, sort_keys=True), version)
    for position in newest[publication.leader]:
        if all(position in versions for versions in newest.values()):
            return {spec: versions[position] for spec, versions in newest.items()}
    raise LakeError(
        f"{publication.layer.capitalize()} has no version of that time any more; go back to a newer snapshot"
    )


def _from_nothing(spec: TableSpec, snapshot_id: int) -> LakeError:
    return LakeError(
        f"{spec.identifier}: snapshot {snapshot_id} is empty and was made from nothing; go back to a newer one"
    )


def _require_kept(lake: Lakehouse, upstream: TableSpec, position: int) -> None:
    if all(version.snapshot_id != position for version in lake.state(upstream).history()):
        raise LakeError(
            f"what was made from {upstream.identifier} since then cannot be made again: its snapshot {position} has expired;"
            " go back to a newer snapshot"
        )


def _require_above_audited(lake: Lakehouse, raw: TableSpec, target: Version) -> None:
    audited = lake.state(raw).head(AUDITED_TAG)
    behind = {version.snapshot_id for version in lake.state(raw).history(target.snapshot_id)}
    if audited and audited.snapshot_id not in behind:
        raise LakeError(
            f"{raw.identifier} cannot go back behind its tag 'audited' ({audited.snapshot_id}): Silver was made from it;"
            " what is wrong in audited rows is mended by rejecting them, or in Silver"
        )


def _require_in_kafka(ctx: JobContext, target: Version) -> None:
    position = ctx.lake.state(ctx.stream.raw).newest_position(target.snapshot_id)
    broker = ctx.environment.broker()
    offsets = {topic: broker.offsets(topic) for topic in ctx.stream.ingest.topics}
    ingest.starting_offsets((position and position.position) or {}, offsets)
