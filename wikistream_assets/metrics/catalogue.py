"""docs/METRICS.md: every metric with type, labels and meaning, from the registries themselves."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry

from producer.cursor import Counters
from producer.metrics import Metrics
from wikistream_assets.engine.stream_metrics import AgeGroup, StreamMetrics
from wikistream_assets.metrics.lake import FAMILIES

_HEAD: Final = """\
# Metrics

Generated from the code by `wikistream metrics document`; edit the code, not this file.
Each of the three ports is a setting, 0 (none) by default; `make up` serves those that are set. `wikistream metrics serve`
serves the lake's figures alone, `wikistream metrics show` prints them.
All endpoints answer `GET /metrics` on loopback. Times are seconds since 1970 in UTC.
"""


def document() -> str:
    """The whole document as Markdown; equal code gives equal text."""
    producer, stream = Metrics(), StreamMetrics()
    # A metric with labels shows them only once it has been counted.
    producer.committed(Counters(dead_lettered=Counter({"not_json": 1})), 0, ())
    stream.committed({"records": 0, "rows": 0, "dead_letters": 0, "duplicates": 0}, 0.0, [AgeGroup(1, 0.0)])
    lake = ((name, family.kind, family.labels, family.text) for name, family in FAMILIES.items())
    parts = {
        "Producer, port `WIKISTREAM_PRODUCER_METRICS_PORT`: one process, counted from its start": _of(
            producer.registry
        ),
        "Bronze stream, port `WIKISTREAM_STREAM_METRICS_PORT`: one process, counted from its start": _of(
            stream.registry
        ),
        "Lake, port `WIKISTREAM_METRICS_PORT`: as it is when asked": lake,
    }
    return "\n".join([_HEAD, *(line for title, rows in parts.items() for line in _section(title, rows))])


def _section(title: str, rows: Iterator[tuple[str, str, tuple[str, ...], str]]) -> Iterator[str]:
    yield from (f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|")
    for name, kind, labels, text in rows:
        shown = f"{name}_total" if kind == "counter" else name
        yield f"| `{shown}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
    yield ""


def _of(registry: CollectorRegistry) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for family in registry.collect():
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        yield family.name, family.type, tuple(labels), family.documentation
