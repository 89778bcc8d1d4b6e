"""What a quality rule is, and what comes out of checking it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_FAILING_KEYS = 100
"""Keys of failing rows kept per failed check."""

MIN_RATIO_ROWS = 500
"""Rows a ratio check needs; in a smaller table one odd row would swing the ratio, so the check is SKIPPED."""


class Dimension(StrEnum):
    """Kind of a check, ``quality_results.check_type``."""

    COMPLETENESS = "completeness"
    TIMELINESS = "timeliness"
    VALIDITY = "validity"
    ACCURACY = "accuracy"
    CONSISTENCY = "consistency"
    UNIQUENESS = "uniqueness"
    DRIFT = "drift"
    UPSTREAM = "upstream"


class Severity(StrEnum):
    """ERROR blocks everything downstream, WARNING never does."""

    ERROR = "ERROR"
    WARNING = "WARNING"


class Status(StrEnum):
    """Verdict of one check, ``quality_results.status``."""

    PASSED = "PASSED"
    WARNING = "WARNING"
    """Breached at severity WARNING, or breached and accepted by an operator."""
    FAILED = "FAILED"
    """Breached at severity ERROR."""
    ERROR = "ERROR"
    """The check itself broke; it fails closed."""
    SKIPPED = "SKIPPED"
    """Not applicable, with the reason in the message."""

    @property
    def blocks(self) -> bool:
        return self in (Status.FAILED, Status.ERROR)


class Basis(StrEnum):
    """How many rows a check needs."""

    ABSOLUTE = "absolute"
    """Holds for every single row: always runs."""
    RATIO = "ratio"
    """A share of rows: runs on at least ``MIN_RATIO_ROWS`` rows."""


@dataclass(frozen=True)
class NotNull:
    """Share of rows (of those that meet ``where``) in which ``column`` is not null."""

    column: str
    where: str | None = None


@dataclass(frozen=True)
class Holds:
    """Share of rows (of those that meet ``where``) for which the SQL ``predicate`` is true; null counts as false."""

    predicate: str
    where: str | None = None


@dataclass(frozen=True)
class Unique:
    """Share of rows whose values of ``columns`` occur exactly once."""

    columns: tuple[str, ...]


@dataclass(frozen=True)
class Computed:
    """Measured by the gate itself (comparison with another table, with history): the gate supplies the figure."""


Measure = NotNull | Holds | Unique | Computed


@dataclass(frozen=True)
class Rule:
    """One rule of a table's contract.

    Attributes:
        name: ``check_name`` in ``dq_audit`` and the name of the Dagster asset check; unique within the table.
        dimension: kind of check.
        description: what must hold, in one sentence a person reads in the UI.
        measure: how the figure is computed; a share between 0 and 1 unless the measure is ``Computed``.
        threshold: the figure must be at least this.
        because: where the threshold comes from: the measurement or the decision behind it.
        severity: whether a breach blocks.
        basis: whether the rule speaks of every row or of a share of rows.
        warn_below: a figure below this, though not below ``threshold``, is a WARNING; None for a rule with one bound.
    """

    name: str
    dimension: Dimension
    description: str
    measure: Measure
    threshold: float
    because: str
    severity: Severity = Severity.ERROR
    basis: Basis = Basis.ABSOLUTE
    warn_below: float | None = None


@dataclass(frozen=True)
class CheckOutcome:
    """One verdict: the same figures go to ``dq_audit.quality_results`` and to the Dagster asset check.

    Attributes:
        metric: the measured figure, None where nothing was measured (SKIPPED, ERROR).
        records_checked / records_failed: rows looked at, rows that break the rule.
        failing_keys: up to ``MAX_FAILING_KEYS`` keys of rows that break it; IP users only as keyed hash.
        evidence: anything else a person needs to judge the verdict; JSON-serialisable.
    """

    rule: Rule
    table: str
    status: Status
    metric: float | None = None
    records_checked: int = 0
    records_failed: int = 0
    message: str = ""
    failing_keys: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    duration_ms: int = 0
