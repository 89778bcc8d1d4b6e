"""What an operator sees of a blocked gate, and how a decision on it is checked before it is recorded."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log, bronze_gate, publication
from wikistream_assets.engine.context import JobContext, SnapshotRange
from wikistream_assets.engine.decisions import (
    Action,
    Decision,
    corrected,
    decide,
    decision_of,
    decisions_on,
    decisions_within,
    record,
)
from wikistream_assets.engine.rejections import read_marked
from wikistream_assets.exceptions import GateError
from wikistream_assets.lake.lakehouse import Lakehouse, table_spec
from wikistream_assets.lake.spark_io import read_range, read_table
from wikistream_assets.lake.state import States
from wikistream_assets.quality.rule import Status, Unique
from wikistream_assets.streams.declaration import Append, Stream
from wikistream_assets.streams.registry import STREAMS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.marks import REJECTED_BY

_SHOWN_KEYS: Final = 10


@dataclass(frozen=True)
class GateState:
    """Where the gate of one layer of a stream stands.

    Attributes:
        pending: range that waits for the gate; empty when all is published.
        failures: rows of ``quality_results`` that block the pending range, from its newest attempt.
        refusals: for each decision that the gate has to obey and cannot, a line that says why and what to do.
    """

    stream: Stream
    layer: str
    pending: SnapshotRange
    failures: tuple[dict[str, object], ...]
    refusals: tuple[str, ...] = ()

    @property
    def blocked(self) -> bool:
        return bool(self.failures or self.refusals)


def pending_range(states: States, stream: Stream, layer: str) -> SnapshotRange:
    """What waits for the gate of ``layer``; it starts after what has been published."""
    if layer == bronze_gate.LAYER:
        return bronze_gate.pending_range(states, stream.raw)
    return publication.pending_range(states, stream.publication(layer))


def waiting_layers(states: States, stream: Stream) -> tuple[str, ...]:
    """The layers whose gates something waits for, in order."""
    return tuple(layer for layer in stream.layers if not pending_range(states, stream, layer).empty)


def gate_states(lake: Lakehouse, streams: Iterable[Stream] = STREAMS.values()) -> tuple[GateState, ...]:
    """The gates of the streams, in order. Reads the catalog, and where a range waits, the verdicts and decisions on it."""
    states, gates = lake.look(), []
    for stream in streams:
        for layer in stream.layers:
            pending = pending_range(states, stream, layer)
            verdicts = [] if pending.empty else audit_log.last_attempt(lake, stream, layer, pending)
            failures = tuple(verdict for verdict in verdicts if Status(verdict["status"]).blocks)
            refusals = tuple(_refusals(lake, stream, layer, pending))
            gates.append(GateState(stream, layer, pending, failures, refusals))
    return tuple(gates)


def _refusals(lake: Lakehouse, stream: Stream, layer: str, pending: SnapshotRange) -> Iterator[str]:
    decisions: list[Decision] = []
    if not pending.empty and layer == bronze_gate.LAYER:
        decisions = decisions_on(lake, stream.raw, pending)
    elif not pending.empty and isinstance((published := stream.publication(layer)).build, Append):
        decisions = [*decisions_within(lake, stream.raw, pending), *decisions_on(lake, published.leader, pending)]
    for decision in decisions:
        try:
            _ = decision.action == "reject" and decision.condition
        except GateError as error:
            yield str(error)


def rollback_target(lake: Lakehouse, state: GateState) -> int | None:
    """The Bronze snapshot that takes a range back which holds rows twice; None if it has none, or begins with the table."""
    raw = state.stream.raw
    repeated = any(
        failure["table_name"] == raw.identifier and isinstance(raw.rule(str(failure["check_name"])).measure, Unique)
        for failure in state.failures
    )
    return state.pending.start if repeated and lake.state(raw).newest_position(state.pending.start) else None


@dataclass(frozen=True)
class Preview:
    """What a decision covers.

    Attributes:
        rows: rows a reject matches; None for an accept.
    """

    decision: Decision
    rows: int | None
    text: str


def decide_on_failure(
    ctx: JobContext,
    action: Action,
    table: str,
    check_name: str,
    *,
    reason: str,
    decided_by: str,
    predicate: str | None = None,
    dry_run: bool = False,
) -> Preview:
    """Check a decision against the failure it is about, show what it covers, and record it unless ``dry_run``.

    Only a reject needs Spark.

    Raises:
        GateError: the check does not block now, the predicate is no valid condition or matches no row, or no reason is given.
    """
    spec = table_spec(table)
    blocking = (
        (state, failure)
        for state in gate_states(ctx.lake, [ctx.stream])
        for failure in state.failures
        if failure["table_name"] == table and failure["check_name"] == check_name
    )
    state, verdict = next(blocking, (None, None))
    if state is None or verdict is None:
        raise GateError(f"{table}.{check_name} does not block anything now; see: wikistream gate status")
    decision = decide(
        action, spec, check_name, state.pending, reason=reason, decided_by=decided_by, predicate=predicate
    )
    preview = _preview(ctx, decision, verdict)
    if not dry_run:
        record(ctx.lake, decision)
    return preview


def _preview(ctx: JobContext, decision: Decision, verdict: dict[str, object]) -> Preview:
    waived = f"{decision.table_name}.{decision.check_name}: {verdict['message']}"
    if decision.action == "accept":
        return Preview(decision, None, f"accept {decision.decision_id} waives {waived}")
    rows, keys = _matching(ctx, decision)
    if rows == 0:
        which = "repeated row" if decision.repeated_columns else "row"
        raise GateError(f"no {which} of the failed range meets {decision.predicate!r}; correct the condition")
    shown = ", ".join(keys) + (", .." if rows > len(keys) else "")
    return Preview(
        decision, rows, f"reject {decision.decision_id} sends {rows} rows to quarantine ({shown}); it is about {waived}"
    )


def _matching(ctx: JobContext, decision: Decision) -> tuple[int, list[str]]:
    """Rows of the failed range that the decision rejects, and the keys of the first few."""
    spec = table_spec(decision.table_name)
    with _condition_that_runs(spec):
        if spec is ctx.stream.raw:
            decisions = [*decisions_on(ctx.lake, spec, decision.range), decision]
            marked = read_marked(ctx.spark, ctx.lake, spec, decision.range, decisions)
            rejected = marked.where(sf.col(REJECTED_BY) == decision.decision_id)
        else:
            rejected = _built(ctx.lake, ctx.spark, spec).where(decision.condition)
        rejected = rejected.select(*spec.key)
        keys = ["/".join(str(value) for value in row) for row in rejected.limit(_SHOWN_KEYS).collect()]
        return rejected.count(), keys


def _built(lake: Lakehouse, spark: SparkSession, spec: TableSpec) -> DataFrame:
    """Silver's failed rows: they are not published, but stand on the audit branch that the failure has left as evidence."""
    state = lake.state(spec)
    if state.waiting is None:
        raise GateError(f"{spec.identifier} has no audit branch any more; run its job again first")
    return read_range(spark, spec, state.head_id(), state.head_id(state.waiting))


@contextmanager
def _condition_that_runs(spec: TableSpec) -> Iterator[None]:
    """Tell in one line what Spark has against a condition of the grammar: it is no boolean, or a pattern is none."""
    try:
        yield
    except PySparkException as error:
        raise GateError(f"--where is not a valid condition on {spec.identifier}: {_first_line(error)}") from None
    except Py4JJavaError as error:
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        raise GateError(
            f"--where cannot be carried out on {spec.identifier}: {_first_line(cause.toString())}"
        ) from None


def _first_line(error: object) -> str:
    return next((line for text in str(error).splitlines() if (line := text.strip())), "no reason given")


def correct(
    ctx: JobContext,
    decision_id: str,
    predicate: str,
    *,
    reason: str,
    decided_by: str,
    dry_run: bool = False,
) -> Decision:
    """Give a decision whose condition is refused another one, and record it unless ``dry_run``. It may match no row.

    Raises:
        GateError: there is no such decision, or as ``corrected``.
    """
    found = decision_of(ctx.lake, decision_id)
    if found is None:
        raise GateError(f"there is no decision {decision_id!r}; see: wikistream gate status")
    decision = corrected(found, predicate, reason=reason, decided_by=decided_by)
    spec = table_spec(decision.table_name)
    with _condition_that_runs(spec):
        read_table(ctx.spark, spec).where(decision.condition).limit(1).collect()
    if not dry_run:
        record(ctx.lake, decision)
    return decision
