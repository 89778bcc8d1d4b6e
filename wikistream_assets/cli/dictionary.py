"""``wikistream dictionary``: docs/DATA_DICTIONARY.md, written from the table contracts and held to them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wikistream_assets.cli.console import write_document

if TYPE_CHECKING:
    from wikistream_assets.quality.rule import Measure, Rule
    from wikistream_assets.tables import TableSpec

DICTIONARY = Path("docs/DATA_DICTIONARY.md")

_HEAD = """\
# Data dictionary

Generated from `wikistream_assets/tables` by `wikistream dictionary`; edit the contracts, not this file.
All times are instants in UTC. A rule of severity ERROR blocks everything downstream, WARNING never does.
"""


def dictionary(
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit 1 if the file is stale")] = False,
    path: Annotated[Path, typer.Option(help="the file", dir_okay=False)] = DICTIONARY,
) -> None:
    """Write the data dictionary from the table contracts."""
    write_document(path, dictionary_text(), "wikistream dictionary", check=check)


def dictionary_text() -> str:
    """The whole document as Markdown; equal contracts give equal text."""
    from wikistream_assets.tables import ALL_TABLES

    index = ["| table | content |", "|---|---|"]
    index += [
        f"| [{t.identifier}](#{_anchor(t)}) | {_cell(t.description.split('. ')[0].rstrip('.'))} |" for t in ALL_TABLES
    ]
    return "\n".join([_HEAD, *index, "", *(_section(spec) for spec in ALL_TABLES)])


def _section(spec: "TableSpec") -> str:
    facts = [
        f"- Key: {_names(spec.key)}",
        f"- Partitions: {_names(spec.partition_by)}",
        f"- Made from: {_names(spec.upstream) if spec.upstream else 'Kafka'}",
        f"- Owner: {spec.owner}",
    ]
    if spec.profiled:
        facts.append(f"- Profiled: {_names(spec.profiled)}")
    columns = ["| column | type | meaning |", "|---|---|---|"]
    columns += [f"| `{column.name}` | {column.type} | {_cell(column.comment)} |" for column in spec.columns]
    return "\n".join([f"## {spec.identifier}", "", spec.description, "", *facts, "", *columns, "", *_rules(spec.rules)])


def _rules(rules: "tuple[Rule, ...]") -> list[str]:
    if not rules:
        return []
    lines = [
        "| rule | dimension | severity | must hold | measured as | at least | because |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule in rules:
        warning = f"; WARNING below {rule.warn_below:g}" if rule.warn_below is not None else ""
        lines.append(
            f"| `{rule.name}` | {rule.dimension.value} | {rule.severity.value} | {_cell(rule.description)} "
            f"| {_measured(rule.measure)} | {rule.threshold:g} ({rule.basis.value}{warning}) | {_cell(rule.because)} |"
        )
    return [*lines, ""]


def _measured(measure: "Measure") -> str:
    from wikistream_assets.quality.rule import Holds, NotNull, Unique

    match measure:
        case NotNull(column, where):
            text = f"share of `{column}` that is not null"
        case Holds(predicate, where):
            text = f"share of rows with {_code(predicate)}"
        case Unique(columns):
            return f"share of rows with a unique {_names(columns)}"
        case _:
            return "computed by the gate"
    return f"{text}, of rows with {_code(where)}" if where else text


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(text: str) -> str:
    """Inline code in a table cell; a pipe would end the cell even inside back-ticks."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _anchor(spec: "TableSpec") -> str:
    """GitHub's anchor of the heading ``namespace.name``."""
    return spec.identifier.replace(".", "")
