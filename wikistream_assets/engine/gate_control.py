"""What an operator sees of a blocked gate, and how a decision on it is checked before it is recorded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.engine import audit_log, bronze_gate, gold, silver
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
from wikistream_assets.lake.state import AUDIT_BRANCH, States
from wikistream_assets.quality.rule import Status, Unique
from wikistream_assets.streams.edits.cleaned_events import REJECTED_BY
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec

_PENDING: Final[dict[str, Callable[[States], SnapshotRange]]] = {
    bronze_gate.LAYER: bronze_gate.pending_range,
    silver.LAYER: silver.pending_range,
    gold.LAYER: gold.pending_range,
}

_SHOWN_KEYS: Final = 10


@dataclass(frozen=True)
class GateState:
    """Where one layer's gate stands.

    Attributes:
        pending: range that waits for the gate; empty when all is published.
        failures: rows of ``quality_results`` that block the pending range, from its newest attempt.
        refusals: for each decision that the gate has to obey and cannot, a line that says why and what to do.
    """

    layer: str
    pending: SnapshotRange
    failures: tuple[dict[str, object], ...]
    refusals: tuple[str, ...] = ()

    @property
    def blocked(self) -> bool:
        return bool(self.failures or self.refusals)


def pending_range(states: States, layer: str) -> SnapshotRange:
    """What waits for the gate of ``layer``; it starts after what has been published."""
    return _PENDING[layer](states)


def waiting_layers(states: States) -> tuple[str, ...]:
    """The layers whose gates something waits for, in order."""
    return tuple(layer for layer in _PENDING if not pending_range(states, layer).empty)


def gate_states(lake: Lakehouse) -> tuple[GateState, ...]:
    """The three gates, in order. Reads the catalog, and where a range waits, the verdicts and decisions on it."""
    states, gates = lake.look(), []
    for layer in _PENDING:
        pending = pending_range(states, layer)
        verdicts = [] if pending.empty else audit_log.last_attempt(lake, layer, pending)
        failures = tuple(verdict for verdict in verdicts if Status(verdict["status"]).blocks)
        gates.append(GateState(layer, pending, failures, tuple(_refusals(lake, layer, pending))))
    return tuple(gates)


def _refusals(lake: Lakehouse, layer: str, pending: SnapshotRange) -> Iterator[str]:
    decisions: list[Decision] = []
    if not pending.empty and layer == bronze_gate.LAYER:
        decisions = decisions_on(lake, RAW_EVENTS, pending)
    elif not pending.empty and layer == silver.LAYER:
        decisions = [*decisions_within(lake, pending), *decisions_on(lake, CLEANED_EVENTS, pending)]
    for decision in decisions:
        try:
            _ = decision.action == "reject" and decision.condition
        except GateError as error:
            yield str(error)


def rollback_target(lake: Lakehouse, state: GateState) -> int | None:
    """The Bronze snapshot that takes a range back which holds rows twice; None if it has none, or begins with the table."""
    repeated = any(
        failure["table_name"] == RAW_EVENTS.identifier
        and isinstance(RAW_EVENTS.rule(str(failure["check_name"])).measure, Unique)
        for failure in state.failures
    )
    return state.pending.start if repeated and lake.state(RAW_EVENTS).newest_position(state.pending.start) else None


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
    state = next((state for state in gate_states(ctx.lake) if state.layer == spec.namespace), None)
    verdict = next(
        (
            failure
            for failure in (state.failures if state else ())
            if failure["table_name"] == table and failure["check_name"] == check_name
        ),
        None,
    )
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
        if spec is RAW_EVENTS:
            decisions = [*decisions_on(ctx.lake, spec, decision.range), decision]
            marked = read_marked(ctx.spark, ctx.lake, decision.range, decisions)
            rejected = marked.where(sf.col(REJECTED_BY) == decision.decision_id)
        else:
            rejected = _built(ctx.lake, ctx.spark, spec).where(decision.condition)
        rejected = rejected.select(*spec.key)
        keys = ["/".join(str(value) for value in row) for row in rejected.limit(_SHOWN_KEYS).collect()]
        return rejected.count(), keys


def _built(lake: Lakehouse, spark: SparkSession, spec: TableSpec) -> DataFrame:
    """Silver's failed rows: they are not published, but stand on the audit branch that the failure has left as evidence."""
    main, branch = lake.state(spec).head(), lake.state(spec).head(AUDIT_BRANCH)
    if main is None or branch is None:
        raise GateError(f"{spec.identifier} has no audit branch any more; run its job again first")
    return read_range(spark, spec, main.snapshot_id, branch.snapshot_id)


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
