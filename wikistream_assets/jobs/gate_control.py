"""What an operator sees of a blocked gate, and how a decision on it is checked before it is recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import SparkSession

from wikistream_assets.exceptions import GateError
from wikistream_assets.jobs import audit_log, bronze_gate, gold, silver
from wikistream_assets.jobs.context import SnapshotRange
from wikistream_assets.jobs.decisions import Action, Decision, decide, record
from wikistream_assets.quality.rule import Status
from wikistream_assets.resources.lakehouse import AUDIT_BRANCH, Lakehouse, table_spec
from wikistream_assets.resources.spark import read_range
from wikistream_assets.tables import RAW_EVENTS

_PENDING: Final[dict[str, Callable[[Lakehouse], SnapshotRange]]] = {
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
    """

    layer: str
    pending: SnapshotRange
    failures: tuple[dict[str, object], ...]

    @property
    def blocked(self) -> bool:
        return bool(self.failures)


def waiting_layers(lake: Lakehouse) -> tuple[str, ...]:
    """The layers whose gates something waits for, in order. Reads the catalog alone."""
    return tuple(layer for layer, pending_range in _PENDING.items() if not pending_range(lake).empty)


def gate_states(lake: Lakehouse) -> tuple[GateState, ...]:
    """The three gates, in order. Reads the catalog, and where a range waits, the verdicts on it."""
    states = []
    for layer, pending_range in _PENDING.items():
        pending = pending_range(lake)
        verdicts = [] if pending.empty else audit_log.last_attempt(lake, layer, pending)
        failures = tuple(verdict for verdict in verdicts if Status(verdict["status"]).blocks)
        states.append(GateState(layer, pending, failures))
    return tuple(states)


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
    lake: Lakehouse,
    session: Callable[[], SparkSession],
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

    ``session`` is called for a reject only: an accept needs no Spark.

    Raises:
        GateError: the check does not block now, the predicate is not valid SQL or matches no row, or no reason is given.
    """
    spec = table_spec(table)
    state = next((state for state in gate_states(lake) if state.layer == spec.namespace), None)
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
    preview = _preview(lake, session, decision, verdict)
    if not dry_run:
        record(lake, decision)
    return preview


def _preview(
    lake: Lakehouse, session: Callable[[], SparkSession], decision: Decision, verdict: dict[str, object]
) -> Preview:
    waived = f"{decision.table_name}.{decision.check_name}: {verdict['message']}"
    if decision.action == "accept":
        return Preview(decision, None, f"accept {decision.decision_id} waives {waived}")
    rows, keys = _matching(lake, session(), decision)
    if rows == 0:
        raise GateError(f"no row of the failed range meets {decision.predicate!r}; correct the condition")
    shown = ", ".join(keys) + (", .." if rows > len(keys) else "")
    return Preview(
        decision, rows, f"reject {decision.decision_id} sends {rows} rows to quarantine ({shown}); it is about {waived}"
    )


def _matching(lake: Lakehouse, spark: SparkSession, decision: Decision) -> tuple[int, list[str]]:
    """Rows of the failed range that meet the predicate, and the keys of the first few."""
    spec = table_spec(decision.table_name)
    covered = decision.range
    if spec is not RAW_EVENTS:
        # Silver's failed rows are not published: they stand on the audit branch that the failure left as evidence.
        main, branch = lake.head(spec), lake.head(spec, AUDIT_BRANCH)
        if main is None or branch is None:
            raise GateError(f"{spec.identifier} has no audit branch any more; run its job again first")
        covered = SnapshotRange(main.snapshot_id, branch.snapshot_id)
    rows = read_range(spark, spec, covered.start, covered.end)
    try:
        matching = rows.where(str(decision.predicate)).select(*spec.key)
        keys = ["/".join(str(value) for value in row) for row in matching.limit(_SHOWN_KEYS).collect()]
        return matching.count(), keys
    except (AnalysisException, ParseException) as error:
        first_line = str(error).splitlines()[0]
        raise GateError(f"--where is not a valid condition on {spec.identifier}: {first_line}") from None
