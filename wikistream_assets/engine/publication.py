"""Write, audit, publish: one range of an upstream table is built on branches, audited there, and published, or left as evidence.

The position of a publication's first table is the truth. Where the catalog cannot move all tables as one, the first is published
first, and the others, which have the same position ready on their branches, are brought to it at the next start.

Each attempt has its own branches, made at the snapshots that its range was read from. A publication is a compare-and-set on
these, so two runs at once cannot both win, and none judges the rows of the other; the lock only spares the work.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from wikistream_assets.engine import gate
from wikistream_assets.engine.append import Appending
from wikistream_assets.engine.context import GateReport, JobContext, SnapshotRange
from wikistream_assets.engine.failpoints import (
    AFTER_BRANCHES,
    AFTER_PUBLISH,
    AFTER_RESULTS,
    AMID_PUBLICATION,
    failpoint,
    of_layer,
)
from wikistream_assets.engine.recompute import Recomputing
from wikistream_assets.exceptions import BranchOutdatedError, GateError
from wikistream_assets.lake.failures import in_one_line
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import common_versions
from wikistream_assets.lake.state import AUDIT_PREFIX, AUDITED_TAG, Attempted, States, TableState, consumed
from wikistream_assets.streams.declaration import Append, Publication
from wikistream_assets.tables.spec import TableSpec

_log: Final = logging.getLogger(__name__)


class Builder(Protocol):
    """Builds and audits the tables of one publication for one range."""

    def build(self, attempt: gate.Attempt) -> None:
        """Write the rows of each table to the attempt's branch, with the position they stand for."""

    def audit(self, attempt: gate.Attempt) -> list[gate.AuditedTable]:
        """Look at what was built."""


def pending_range(states: States, publication: Publication) -> SnapshotRange:
    """The upstream snapshots that are not published: a range that was begun before, else all that may be read."""
    leader, upstream = states[publication.leader], states[publication.upstream]  # an older leader only means more to do
    start = consumed(leader.newest_position(), publication.upstream) or upstream.first
    if begun := _begun_end(states, publication, start):
        return SnapshotRange(start, begun)
    if isinstance(publication.source, TableSpec):
        return SnapshotRange(start, upstream.refs.get(AUDITED_TAG, start))
    # Not the head: compaction after the newest position adds nothing that would have to be read.
    newest = upstream.newest_position()
    return SnapshotRange(start, newest.snapshot_id if newest else start)


def _begun_end(states: States, publication: Publication, start: int) -> int | None:
    """Where the range ends that was begun at ``start`` and not published; None if there is none, or main went back since."""
    leader = states[publication.leader]
    # A lake of before there were notes has the branch alone.
    on_branch = leader.newest_position(leader.waiting) if leader.waiting else None
    end = leader.pinned_end(start) or consumed(on_branch, publication.upstream)
    if end is None or end == start:
        return None
    on_main = any(version.snapshot_id == end for version in states[publication.upstream].history())
    return end if on_main else None


@in_one_line
def run(ctx: JobContext, publication: Publication) -> GateReport:
    """Build, audit and publish the pending range.

    Raises:
        WriterBusyError: another run is working on this publication.
    """
    with _only_run(ctx, publication):
        return _again_if_outdated(ctx, publication, lambda: _publish_pending(ctx, publication))


@in_one_line
def recompute(ctx: JobContext, publication: Publication, dates: Sequence[str]) -> GateReport:
    """Compute dates again from the upstream rows that are published, audit and publish them; all other dates stay as they are.

    Args:
        publication: one that recomputes.
        dates: yyyy-MM-dd; a date without events ends without rows.

    Raises:
        WriterBusyError: another run is working on this publication.
        GateError: nothing is published yet, or a failed range waits for a decision.
    """
    with _only_run(ctx, publication):
        return _again_if_outdated(ctx, publication, lambda: _recompute(ctx, publication, sorted(dates)))


@contextmanager
def _only_run(ctx: JobContext, publication: Publication) -> Iterator[None]:
    name = ctx.stream.lease(publication.layer)
    with ctx.leases.only_run(ctx.spark, name), ctx.leases.main_of(name):
        settle(ctx.lake, publication)
        yield


def _again_if_outdated(ctx: JobContext, publication: Publication, work: Callable[[], GateReport]) -> GateReport:
    try:
        return work()
    except BranchOutdatedError as error:
        _log.info("%s: begun again, %s", publication.layer, error)
        settle(ctx.lake, publication)
        return work()


def _publish_pending(ctx: JobContext, publication: Publication) -> GateReport:
    states = ctx.lake.look()
    covered = pending_range(states, publication)
    if covered.empty:
        return gate.already_published(ctx, publication.layer, publication.tables, covered)
    return _attempt(ctx, publication, states, covered)


def _recompute(ctx: JobContext, publication: Publication, dates: Sequence[str]) -> GateReport:
    states, layer = ctx.lake.look(), publication.layer.capitalize()
    source = consumed(states[publication.leader].newest_position(), publication.upstream)
    if source is None:
        raise GateError(f"{layer} has published nothing yet: run the cycle first")
    if _begun_end(states, publication, source):
        raise GateError(
            f"{layer} is blocked by a failed range, whose evidence this would replace: "
            "see 'wikistream gate status', decide first"
        )
    return _attempt(ctx, publication, states, SnapshotRange(source, source), dates)


def settle(lake: Lakehouse, publication: Publication) -> None:
    """Finish what was cut off between the tables: bring the others to the position of the first.

    A table that is behind has what it lacks ready on the branch of the same attempt. So has the first, if the others were
    published before it, as versions before ADR 23 did with the quarantine. Where there is no such branch (a rollback was cut
    off), all go back to what they have in common.
    """
    for spec in publication.tables[1:]:
        states = lake.look()
        leader, other = states[publication.leader], states[spec]
        if other.position == leader.position:
            continue
        if not (_bring(lake, other, leader) or _bring(lake, leader, other)):
            _set_back(lake, publication)
            return


def _bring(lake: Lakehouse, behind: TableState, ahead: TableState) -> bool:
    """Publish what ``behind`` has ready of the attempt that ``ahead`` was published by; False if there is nothing."""
    branch = ahead.published_by()
    ready = behind.newest_position(branch) if branch in behind.refs else None
    if ready is None or ready.position != ahead.position:
        return False
    try:
        lake.publish([behind.spec], branch)
    except BranchOutdatedError:
        return False
    _log.info("%s is brought to the position of %s", behind.spec.identifier, ahead.spec.identifier)
    return True


def _set_back(lake: Lakehouse, publication: Publication) -> None:
    states = lake.look()
    common = common_versions(states, publication.tables)
    for spec in publication.tables:
        target = common[spec.identifier].snapshot_id
        if states[spec].head_id() != target:
            _log.info("%s is set back to %d, which the others agree with", spec.identifier, target)
            lake.reset_main(spec, target)


def _attempt(
    ctx: JobContext, publication: Publication, states: States, covered: SnapshotRange, asked: Sequence[str] = ()
) -> GateReport:
    lake, layer = ctx.lake, publication.layer
    leader = states[publication.leader]
    attempt = gate.Attempt(
        branch=f"{AUDIT_PREFIX}{uuid.uuid4().hex[:8]}",
        bases={spec: states[spec].head_id() for spec in publication.tables},
        gate=gate.begin_attempt(ctx, layer, covered, unfinished=_unfinished(leader, publication, covered), dates=asked),
    )
    _note(lake, leader, covered, attempt.branch)
    for spec, base in attempt.bases.items():
        # The newest attempt's stays, which may be at work or be the evidence; those before it would pile up behind a closed gate.
        older = [name for name in states[spec].audit_branches if name != leader.waiting]
        lake.create_branch(spec, attempt.branch, at=base, instead_of=older)
    builder = _builder(ctx, publication, covered, asked)
    try:
        builder.build(attempt)
        failpoint(ctx.settings, of_layer(layer, AFTER_BRANCHES))
        audited = builder.audit(attempt)
    except Exception:
        _require_unmoved(lake, attempt)  # else it failed for what another run has published or dropped meanwhile
        raise
    _require_unmoved(lake, attempt)
    outcomes = gate.record(ctx, attempt.gate, audited)
    failpoint(ctx.settings, of_layer(layer, AFTER_RESULTS))
    report = GateReport(layer, covered, outcomes)
    if not report.passed:
        return report
    lake.publish(
        publication.tables,
        attempt.branch,
        attempt.bases,
        amid=lambda: failpoint(ctx.settings, of_layer(layer, AMID_PUBLICATION)),
    )
    failpoint(ctx.settings, of_layer(layer, AFTER_PUBLISH))
    return GateReport(layer, covered, outcomes, advanced=True)


def _require_unmoved(lake: Lakehouse, attempt: gate.Attempt) -> None:
    """Refuse to judge what was built on a main that is gone: the verdict would be about another run's rows."""
    moved = [spec.identifier for spec, base in attempt.bases.items() if lake.state(spec).head_id() != base]
    if moved:
        raise BranchOutdatedError(f"main of {', '.join(moved)} has moved since {attempt.branch!r} was made")


def _builder(ctx: JobContext, publication: Publication, covered: SnapshotRange, asked: Sequence[str]) -> Builder:
    build = publication.build
    if isinstance(build, Append):
        return Appending(ctx, publication, build, covered)
    return Recomputing(ctx, publication, build, covered, asked)


def _unfinished(leader: TableState, publication: Publication, covered: SnapshotRange) -> bool:
    """Whether an attempt at the range, or at a recomputation of it, was left before its publication."""
    if not covered.empty:
        return leader.pinned_end(covered.start) == covered.end
    attempted = leader.newest_position(leader.waiting) if leader.waiting else None
    return consumed(attempted, publication.upstream) == covered.end and attempted != leader.newest_position()


def _note(lake: Lakehouse, leader: TableState, covered: SnapshotRange, branch: str) -> None:
    # Not the branch alone: killed before a new one is written, a failed range would be forgotten with the old one, and grow.
    noted = leader.attempted
    if covered.empty and noted:  # a recomputation has no range: should main be set back, the last one is met again
        covered = SnapshotRange(noted.start, noted.end)
    lake.note_attempt(leader.spec, Attempted(covered.start, covered.end, branch))
