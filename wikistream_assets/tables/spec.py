"""What a table contract is. DDL, checks, asset definitions, docs and tests all read these objects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wikistream_assets.quality.criteria import Criteria
from wikistream_assets.quality.rule import Rule

ColumnType = Literal["string", "int", "long", "double", "boolean", "timestamp"]
"""Types used in contracts. ``timestamp`` is an instant in UTC with microseconds (Iceberg ``timestamptz``)."""


Role = Literal["incidental", "personal", "pseudonym", "criteria", "drift", "hourly"]
"""What is done with a column besides reading it.

* ``incidental``: when or where a run met the row. It differs between two runs over the same events, and hashes leave it out.
* ``personal``: may name a person, and is masked when it is old.
* ``pseudonym``: addresses stand there as keyed hashes, under a key that each home makes for itself; hashes take them as equal.
* ``criteria``: a class that the criteria of its time gave the row.
* ``drift``: compared with the days before: a text by the shares of its values, a number by its location and tail.
* ``hourly``: its values are counted by event hour and compared with the weeks before.
"""


@dataclass(frozen=True)
class Column:
    """One column: name, type, and the sentence that becomes its comment in Iceberg, Dagster and the data dictionary."""

    name: str
    type: ColumnType
    comment: str
    roles: tuple[Role, ...] = ()


@dataclass(frozen=True)
class TableSpec:
    """One Iceberg table = one Dagster asset = one name.

    Attributes:
        namespace / name: the two parts of the Iceberg identifier and of the asset key.
        description: first sentence says what one row is.
        columns: in table order.
        partition_by: identity partition columns, outermost first.
        key: columns that identify a row.
        upstream: ``namespace.name`` of the tables it is made from, for lineage.
        rules: the quality rules its gate checks, under the default criteria.
        rules_of: gives those of them whose bounds are criteria, under the criteria in question.
        profiled: columns whose profile its gate records.
    """

    namespace: str
    name: str
    description: str
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...]
    key: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    rules_of: Callable[[Criteria], tuple[Rule, ...]] = lambda _: ()
    profiled: tuple[str, ...] = ()
    owner: str = "team:data-platform"

    def __post_init__(self) -> None:
        names = self.column_names
        for column in (*self.partition_by, *self.key, *self.profiled):
            if column not in names:
                raise ValueError(f"{self.identifier}: {column!r} is not a column")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.identifier}: a column name occurs twice")
        rule_names = [rule.name for rule in self.rules]
        if len(set(rule_names)) != len(rule_names):
            raise ValueError(f"{self.identifier}: a rule name occurs twice")

    @property
    def identifier(self) -> str:
        """``namespace.name``, the table's one name."""
        return f"{self.namespace}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def having(self, role: Role) -> tuple[Column, ...]:
        """The columns with ``role``, in table order."""
        return tuple(column for column in self.columns if role in column.roles)

    def rules_under(self, criteria: Criteria) -> tuple[Rule, ...]:
        """``rules`` with the bounds that ``criteria`` set."""
        adjusted = {rule.name: rule for rule in self.rules_of(criteria)}
        return tuple(adjusted.get(rule.name, rule) for rule in self.rules)

    def rule(self, name: str) -> Rule:
        """The rule called ``name``. Raises KeyError if the table has none."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(name)


def columns(*declarations: tuple[str, ColumnType, str, *tuple[Role, ...]]) -> tuple[Column, ...]:
    """Columns from ``(name, type, comment, role, ..)``, so that a contract reads as a table."""
    return tuple(Column(name, of_type, comment, tuple(roles)) for name, of_type, comment, *roles in declarations)
