"""WikiStream: the public Wikimedia edit stream as audited Iceberg tables, on Dagster.

Each room below says what belongs there. Dependencies point one way only, from ``cli`` and ``defs`` down to ``text``; the order
of all rooms stands in ``wikistream_assets_tests/test_rings.py``, which allows no other.

The names in ``__all__`` are for code outside: they stay where they are. All others may move. Each is imported when it is first
asked for, so that ``import wikistream_assets`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wikistream_assets.engine.context import GateReport, JobContext
    from wikistream_assets.engine.step import Action, Step, execute
    from wikistream_assets.environment.choice import environment_of
    from wikistream_assets.exceptions import WikistreamError
    from wikistream_assets.lake.lakehouse import Lakehouse
    from wikistream_assets.lake.query import query
    from wikistream_assets.quality.rule import CheckOutcome, Rule, Severity, Status
    from wikistream_assets.settings import Settings, load_settings
    from wikistream_assets.tables.spec import Column, TableSpec

_HOMES: Final = {
    "Action": "engine.step",
    "CheckOutcome": "quality.rule",
    "Column": "tables.spec",
    "GateReport": "engine.context",
    "JobContext": "engine.context",
    "Lakehouse": "lake.lakehouse",
    "Rule": "quality.rule",
    "Settings": "settings",
    "Severity": "quality.rule",
    "Status": "quality.rule",
    "Step": "engine.step",
    "TableSpec": "tables.spec",
    "WikistreamError": "exceptions",
    "environment_of": "environment.choice",
    "execute": "engine.step",
    "load_settings": "settings",
    "query": "lake.query",
}

__all__ = [
    "Action",
    "CheckOutcome",
    "Column",
    "GateReport",
    "JobContext",
    "Lakehouse",
    "Rule",
    "Settings",
    "Severity",
    "Status",
    "Step",
    "TableSpec",
    "WikistreamError",
    "environment_of",
    "execute",
    "load_settings",
    "query",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
