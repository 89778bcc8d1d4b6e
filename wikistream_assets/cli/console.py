"""What the commands share: opening the lake to read it, safe text, tables, and ending with one line.

Titles, user names and comments come from strangers. Whatever is printed passes through here, so that no control sequence
reaches a terminal, no override of the reading direction hides what stands there, and no spreadsheet runs a formula.
"""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from wikistream_assets.text.printable import is_safe
from wikistream_assets.text.printable import printable as printable  # the commands' one door

if TYPE_CHECKING:  # the commands' help must not wait for the lake's libraries
    from rich.console import Console

    from wikistream_assets.engine.context import JobContext
    from wikistream_assets.lake.lakehouse import Lakehouse
    from wikistream_assets.settings import Settings

MAX_CELL: Final = 60
"""Characters of a value shown in a table; CSV and JSON show all."""

NOT_FOUND: Final = 4
"""Exit code where what the command names is not there: no dead letter matches, no such alert is open."""

_WIDE: Final = 10_000
"""Columns assumed where the output is no terminal: nothing is folded."""

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def open_lake() -> "tuple[Settings, Lakehouse]":
    """The settings and the lake they name, to read from; never makes a new lake.

    Raises:
        ConfigurationError: a setting is wrong.
        LakeError: there is no lake yet, or it is of another format.
    """
    from wikistream_assets.embedded.home import open_home
    from wikistream_assets.embedded.lake import local_lake

    settings = _settings_of_a_lake()
    open_home(settings)
    return settings, local_lake(settings)


def job_context(run_id: str) -> "JobContext":
    """What a command needs that does something to the lake; never makes a new lake, and opens it when it is first asked for.

    Args:
        run_id: the command; recorded where a run's id would be.

    Raises:
        ConfigurationError, LakeError: as ``open_lake``.
        SetupError: the pipeline of another version is running on the lake.
    """
    from wikistream_assets.embedded.services import refuse_another_version
    from wikistream_assets.engine.context import JobContext
    from wikistream_assets.environment.choice import environment_of
    from wikistream_assets.streams.edits.stream import EDITS

    settings = _settings_of_a_lake()
    refuse_another_version(settings)
    return JobContext(environment_of(settings), run_id, EDITS)


def _settings_of_a_lake() -> "Settings":
    from wikistream_assets.exceptions import LakeError
    from wikistream_assets.settings import load_settings

    settings = load_settings()
    if not settings.catalog_db.exists():
        raise LakeError(f"there is no lake in {settings.root}: make one with 'make demo', or set WIKISTREAM_HOME")
    return settings


def fail(message: str, code: int) -> NoReturn:
    """End the command with one line on standard error and the exit code."""
    typer.echo(f"error: {printable(message)}", err=True)
    raise typer.Exit(code)


def write_document(path: Path, text: str, command: str, *, check: bool) -> None:
    """Write a document that is made from the code, or only see that it is fresh: exit code 1 if it is not.

    Args:
        command: what writes it, for the message.
    """
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {path}")
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        fail(f"{path} is not what the code says: run '{command}' and commit it", 1)


def cell(value: object) -> str:
    """A value as a person reads it in a table; long text is cut and ends in an ellipsis."""
    text = printable(plain(value))
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def plain(value: object) -> str:
    """A value as text: NULL by its name, instants in UTC, truth in lower case, structures as JSON."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple, dict)):
        return json_text(value)
    return str(value)


def csv_field(value: object) -> object:
    """A value for ``csv.writer``: text is made printable, and harmless where a spreadsheet would take it for a formula."""
    if value is None or (isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)):
        return value
    text = printable(plain(value))
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def json_text(value: object) -> str:
    """``value`` as JSON on one line; characters a terminal could obey are escaped, which changes nothing for a parser."""
    text = json.dumps(_jsonable(value), ensure_ascii=False)
    return text if text.isprintable() else "".join(c if is_safe(c) else json.dumps(c)[1:-1] for c in text)


def terminal() -> "Console":
    """Where tables are printed: folded to the terminal, not folded in a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numeric: Sequence[str] = ()) -> None:
    """Print a table. Numbers and the columns in ``numeric`` stand right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = [tuple(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        values = [line[index] for line in lines if line[index] is not None]
        is_number = bool(values) and all(
            isinstance(v, (int, float, Decimal)) and not isinstance(v, bool) for v in values
        )
        table.add_column(
            Text(printable(name)), justify="right" if is_number or name in numeric else "left", overflow="fold"
        )
    for line in lines:
        table.add_row(*(Text(cell(value)) for value in line))
    terminal().print(table)


def _jsonable(value: object) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, Decimal)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return plain(value)


def _instant(value: datetime) -> str:
    text = value.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
