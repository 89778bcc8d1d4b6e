"""The way out of a failed gate when the rule is right: an operator accepts the breach or rejects the rows.

A decision is a row of ``dq_audit.gate_decisions``. It covers one table and one failed range, and takes effect at the next
attempt: nothing is published or deleted by deciding.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import pyarrow as pa
from pyiceberg.expressions import BooleanExpression

from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.exceptions import ConditionError, GateError
from wikistream_assets.lake.lakehouse import Lakehouse, matching, table_spec
from wikistream_assets.quality.conditions import checked
from wikistream_assets.quality.rule import Unique
from wikistream_assets.streams.declaration import Append, Stream
from wikistream_assets.streams.registry import STREAMS, stream_of
from wikistream_assets.tables.dq_audit import GATE_DECISIONS
from wikistream_assets.tables.spec import TableSpec

Action = Literal["accept", "reject"]
ROLLBACK: Final = "rollback"
"""Not about a check: main was set back from ``range.end`` to ``range.start``. Kept in the same book, obeyed by no gate."""


def rejectable(streams: Collection[Stream]) -> list[str]:
    """Tables whose rows can be sent to quarantine. What is recomputed follows from others, where the rows are rejected."""
    appended = [each.leader for stream in streams for each in stream.publications if isinstance(each.build, Append)]
    return [spec.identifier for spec in (*(stream.raw for stream in streams), *appended)]


@dataclass(frozen=True)
class Decision:
    """One operator decision, a row of ``dq_audit.gate_decisions``.

    Attributes:
        check_name: the failed check; None for a rollback.
        predicate: condition on the audited table's rows, as the operator wrote it; set for ``reject`` only. What is executed is
            ``condition``.
    """

    decision_id: str
    action: Action | Literal["rollback"]
    table_name: str
    check_name: str | None
    range: SnapshotRange
    predicate: str | None
    reason: str
    decided_by: str
    decided_at: datetime

    @property
    def repeated_columns(self) -> tuple[str, ...]:
        """The columns in which the check looks for repeated rows; none for any other check."""
        measures = (rule.measure for rule in table_spec(self.table_name).rules if rule.name == self.check_name)
        return next((measure.columns for measure in measures if isinstance(measure, Unique)), ())

    @property
    def condition(self) -> str:
        """The predicate as SQL that may be executed. It is checked at each reading: anyone may have written the row.

        Raises:
            GateError: it is not of the grammar.
        """
        try:
            return checked(self.predicate or "", table_spec(self.table_name).column_names)
        except ConditionError as error:
            raise GateError(
                f"the condition of decision {self.decision_id} on {self.table_name}.{self.check_name} is refused: {error};"
                f" replace it: wikistream gate correct {self.decision_id} --where 'SQL condition' --reason '...'"
            ) from None


def decide(
    action: Action,
    spec: TableSpec,
    check_name: str,
    covered: SnapshotRange,
    *,
    reason: str,
    decided_by: str,
    predicate: str | None = None,
) -> Decision:
    """A decision, checked but not yet recorded.

    Raises:
        GateError: no reason, an unknown check, a reject on a table whose rows cannot be rejected, or an invalid predicate.
    """
    if not reason.strip():
        raise GateError("a decision needs a reason: give one with --reason '...'")
    if check_name not in {rule.name for rule in spec.rules}:
        raise GateError(f"{spec.identifier} has no check {check_name!r}; see: wikistream gate status")
    if action == "reject" and spec.identifier not in (able := rejectable(STREAMS.values())):
        raise GateError(
            f"rows of {spec.identifier} cannot be rejected, only those of {', '.join(able)}; accept the check, fix what is"
            " wrong and run again, or set Silver back with 'wikistream rollback' and reject them there"
        )
    if action == "reject":
        _require_condition(predicate or "", spec)
    return Decision(
        decision_id=uuid.uuid4().hex[:8],
        action=action,
        table_name=spec.identifier,
        check_name=check_name,
        range=covered,
        predicate=predicate if action == "reject" else None,
        reason=reason.strip(),
        decided_by=decided_by,
        decided_at=datetime.now(UTC),
    )


def corrected(decision: Decision, predicate: str, *, reason: str, decided_by: str) -> Decision:
    """The decision with another condition in place of one that is refused, checked but not yet recorded.

    Raises:
        GateError: it is no reject, its condition is not refused, the new one is, or no reason is given.
    """
    if decision.action != "reject":
        raise GateError(f"decision {decision.decision_id} is no reject, it has no condition")
    if not reason.strip():
        raise GateError("a decision needs a reason: give one with --reason '...'")
    try:
        _ = decision.condition
    except GateError:
        _require_condition(predicate, table_spec(decision.table_name))
        # The newest row of an id counts, also if the clock was set back.
        at = max(datetime.now(UTC), decision.decided_at + timedelta(microseconds=1))
        return replace(decision, predicate=predicate, reason=reason.strip(), decided_by=decided_by, decided_at=at)
    raise GateError(
        f"the condition of decision {decision.decision_id} is carried out as it is: there is nothing to correct"
    )


def _require_condition(predicate: str, spec: TableSpec) -> None:
    try:
        checked(predicate, spec.column_names)
    except ConditionError as error:
        raise GateError(f"--where is not a valid condition on {spec.identifier}: {error}") from None


def record(lake: Lakehouse, decision: Decision) -> None:
    """Write ``decision`` to ``dq_audit.gate_decisions``; the next attempt at its range obeys it."""
    row = {
        "decision_id": decision.decision_id,
        "action": decision.action,
        "stream": stream_of(table_spec(decision.table_name)).name,
        "table_name": decision.table_name,
        "check_name": decision.check_name,
        "range_start": decision.range.start,
        "range_end": decision.range.end,
        "predicate": decision.predicate,
        "reason": decision.reason,
        "decided_by": decision.decided_by,
        "decided_at": decision.decided_at,
        "decision_date": decision.decided_at.date().isoformat(),
    }
    schema = lake.table(GATE_DECISIONS).schema().as_arrow()
    lake.append(GATE_DECISIONS, pa.Table.from_pylist([row], schema=schema))


def decisions_on(lake: Lakehouse, spec: TableSpec, covered: SnapshotRange) -> list[Decision]:
    """Decisions on the audit of ``spec`` over exactly ``covered``, oldest first.

    One on another range with the same end does not count: that range holds other rows.
    """
    return _read(lake, matching(table_name=spec.identifier, range_start=covered.start, range_end=covered.end))


def decisions_of(lake: Lakehouse, spec: TableSpec) -> list[Decision]:
    """Every decision on ``spec``, oldest first."""
    return _read(lake, matching(table_name=spec.identifier))


def decision_of(lake: Lakehouse, decision_id: str) -> Decision | None:
    """The decision with this id."""
    return next(iter(_read(lake, matching(decision_id=decision_id))), None)


def decisions_within(lake: Lakehouse, raw: TableSpec, covered: SnapshotRange) -> list[Decision]:
    """Decisions on the ranges of ``raw`` that ``covered`` consists of, oldest first."""
    snapshots = {version.snapshot_id for version in lake.state(raw).between(covered.start, covered.end)}
    return [decision for decision in decisions_of(lake, raw) if decision.range.end in snapshots]


def waived_checks(decisions: list[Decision]) -> dict[str, str]:
    """check name -> the decision that accepts its breach, for the verdict's message."""
    return {
        decision.check_name: f"{decision.decision_id} ({decision.decided_by}: {decision.reason})"
        for decision in decisions
        if decision.action == "accept" and decision.check_name is not None
    }


def _read(lake: Lakehouse, row_filter: BooleanExpression) -> list[Decision]:
    rows = lake.table(GATE_DECISIONS).scan(row_filter=row_filter).to_arrow().sort_by("decided_at").to_pylist()
    newest = {row["decision_id"]: row for row in rows}  # a condition that was corrected has a row of the same id
    return [
        Decision(
            decision_id=row["decision_id"],
            action=row["action"],
            table_name=row["table_name"],
            check_name=row["check_name"],
            range=SnapshotRange(row["range_start"], row["range_end"]),
            predicate=row["predicate"],
            reason=row["reason"],
            decided_by=row["decided_by"],
            decided_at=row["decided_at"],
        )
        for row in newest.values()
    ]
