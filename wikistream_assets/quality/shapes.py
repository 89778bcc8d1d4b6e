"""Shapes of rules that several tables share, and the names of the rules that a gate computes itself."""

from typing import Final

from wikistream_assets.quality.rule import Basis, Computed, Dimension, Holds, NotNull, Rule, Severity, Unique

UPSTREAM_GATES_PASSED: Final = "upstream_gates_passed"
DRIFT_NULL_RATE: Final = "drift_null_rate"
DRIFT_CATEGORIES: Final = "drift_categories"
DRIFT_NUMERIC: Final = "drift_numeric"
QUARANTINE_BUDGET_RANGE: Final = "quarantine_budget_range"
QUARANTINE_BUDGET_DAY: Final = "quarantine_budget_day"
VOLUME_AS_USUAL: Final = "volume_as_usual"
MIX_AS_USUAL: Final = "mix_as_usual"
NO_MISSING_HOURS: Final = "no_missing_hours"


def not_null(column: str, because: str) -> Rule:
    """Every row has ``column``."""
    return Rule(
        name=f"{column}_not_null",
        dimension=Dimension.COMPLETENESS,
        description=f"Every row has a value in {column}.",
        measure=NotNull(column),
        threshold=1.0,
        because=because,
    )


def mostly_present(column: str, threshold: float, because: str, where: str | None = None) -> Rule:
    """At least the share ``threshold`` of the rows that meet ``where`` has ``column``."""
    scope = f" where {where}" if where else ""
    return Rule(
        name=f"{column}_completeness",
        dimension=Dimension.COMPLETENESS,
        description=f"At least {threshold:.0%} of the rows{scope} have a value in {column}.",
        measure=NotNull(column, where),
        threshold=threshold,
        because=because,
        basis=Basis.RATIO,
    )


def unique(name: str, columns: tuple[str, ...], because: str) -> Rule:
    """No two rows agree in all ``columns``."""
    return Rule(
        name=name,
        dimension=Dimension.UNIQUENESS,
        description=f"No two rows have the same {', '.join(columns)}.",
        measure=Unique(columns),
        threshold=1.0,
        because=because,
    )


def every(
    name: str, dimension: Dimension, description: str, predicate: str, because: str, where: str | None = None
) -> Rule:
    """``predicate`` is true for every row that meets ``where``.

    A condition in ``where`` leaves a fault to the one rule that names it: a null domain breaks ``domain_not_null``, not each rule
    that compares the domain with something.
    """
    return Rule(
        name=name,
        dimension=dimension,
        description=description,
        measure=Holds(predicate, where),
        threshold=1.0,
        because=because,
    )


def event_date_valid() -> Rule:
    """``event_date`` is what it says."""
    return every(
        "event_date_valid",
        Dimension.VALIDITY,
        "event_date is the UTC date of event_timestamp.",
        "event_date = CAST(date_from_unix_date(CAST(floor(unix_seconds(event_timestamp) / 86400) AS INT)) AS STRING)",
        "decision: it is a partition column, a wrong date hides the row from every daily read",
        where="event_timestamp IS NOT NULL",
    )


def computed(
    name: str,
    dimension: Dimension,
    description: str,
    because: str,
    severity: Severity = Severity.ERROR,
) -> Rule:
    """The gate itself supplies the figure, a share that must be 1."""
    return Rule(
        name=name,
        dimension=dimension,
        description=description,
        measure=Computed(),
        threshold=1.0,
        because=because,
        severity=severity,
    )


def sql_list(values: tuple[str, ...]) -> str:
    """``('a', 'b')`` for an SQL ``IN``; the values are identifiers of this project and hold no quotes."""
    return "(" + ", ".join(f"'{value}'" for value in values) + ")"
