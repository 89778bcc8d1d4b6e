"""How a figure becomes a verdict: the one status logic of all checks, whoever measured them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wikistream_assets.quality.rule import MAX_FAILING_KEYS, CheckOutcome, Rule, Severity, Status


def computed(
    rule: Rule,
    table: str,
    *,
    metric: float | None,
    ok: bool,
    message: str,
    evidence: dict[str, Any] | None = None,
    records_checked: int = 0,
    records_failed: int = 0,
    keys: Sequence[str] = (),
    decision: str | None = None,
    duration_ms: int = 0,
) -> CheckOutcome:
    """The verdict on a figure that was measured already.

    Args:
        rule: the rule that was checked.
        table: ``namespace.name`` of the audited table.
        metric: the measured figure, in the unit of ``rule.threshold``.
        ok: whether the rule holds.
        message: the verdict in one sentence.
        evidence: whatever else is needed to judge it; JSON-serialisable.
        records_checked / records_failed: rows looked at, rows that break the rule.
        keys: keys of rows that break it; those beyond ``MAX_FAILING_KEYS`` are dropped.
        decision: id of the operator's decision that accepts a breach of this rule in this range.
        duration_ms: time the check took.

    Returns:
        PASSED if ``ok`` and not below the rule's bound for a warning; else WARNING for a rule of severity WARNING or an accepted
        breach, FAILED otherwise.
    """
    outcome = CheckOutcome(
        rule=rule,
        table=table,
        status=Status.PASSED,
        metric=metric,
        records_checked=records_checked,
        records_failed=records_failed,
        message=message,
        failing_keys=tuple(keys[:MAX_FAILING_KEYS]),
        evidence=evidence or {},
        duration_ms=duration_ms,
    )
    if ok:
        warned = rule.warn_below is not None and metric is not None and metric < rule.warn_below
        return replace(outcome, status=Status.WARNING) if warned else outcome
    breached = Status.WARNING if rule.severity is Severity.WARNING else Status.FAILED
    return _accepted(replace(outcome, status=breached), decision)


def broken(rule: Rule, table: str, error: str, *, decision: str | None = None, duration_ms: int = 0) -> CheckOutcome:
    """The check itself broke: ERROR, which blocks whatever the rule's severity, because nothing is known about the data."""
    message = f"the check could not be carried out: {error}"
    outcome = CheckOutcome(rule, table, Status.ERROR, message=message, duration_ms=duration_ms)
    return _accepted(outcome, decision)


def not_applicable(
    rule: Rule, table: str, reason: str, *, evidence: dict[str, Any] | None = None, records_checked: int = 0
) -> CheckOutcome:
    """SKIPPED, with the reason."""
    return CheckOutcome(
        rule, table, Status.SKIPPED, message=reason, evidence=evidence or {}, records_checked=records_checked
    )


def _accepted(outcome: CheckOutcome, decision: str | None) -> CheckOutcome:
    if decision is None or not outcome.status.blocks:
        return outcome
    return replace(outcome, status=Status.WARNING, message=f"accepted by decision {decision}: {outcome.message}")
