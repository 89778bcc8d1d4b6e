"""A second stream of edits: the same functions on tables of other names, as a separate declaration."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from pyspark.sql import DataFrame

from wikistream_assets.streams.declaration import Append, Hour, Parity, Publication, Recompute, Stream
from wikistream_assets.streams.edits.gold.together import computed
from wikistream_assets.streams.edits.parity import parities
from wikistream_assets.streams.edits.stream import EDITS, GOLD, SILVER
from wikistream_assets.tables.spec import TableSpec

_TWINS: Final = {spec: replace(spec, name=f"second_{spec.name}") for spec in EDITS.tables}
_ORIGINAL: Final = {twin: spec for spec, twin in _TWINS.items()}


@contextmanager
def _computed(rows: DataFrame, earlier: DataFrame, /, **timing: Any) -> Iterator[Mapping[TableSpec, DataFrame]]:
    with computed(rows, earlier, **timing) as tables:
        yield {_TWINS[spec]: frame for spec, frame in tables.items()}


def _parities(tables: Mapping[TableSpec, DataFrame], upstream: Counter[Hour]) -> list[Parity]:
    found = parities({_ORIGINAL[spec]: frame for spec, frame in tables.items()}, upstream)
    return [replace(parity, table=_TWINS[parity.table]) for parity in found]


assert isinstance(SILVER.build, Append)
assert isinstance(GOLD.build, Recompute)
_SILVER: Final = Publication("silver", _TWINS[EDITS.raw], tuple(_TWINS[spec] for spec in SILVER.tables), SILVER.build)
_GOLD: Final = Publication(
    "gold",
    _SILVER,
    tuple(_TWINS[spec] for spec in GOLD.tables),
    replace(GOLD.build, compute=_computed, parities=_parities),
)

SECOND: Final = Stream(
    name="second",
    ingest=replace(
        EDITS.ingest,
        table=_TWINS[EDITS.raw],
        dead_letters=_TWINS[EDITS.ingest.dead_letters],
        topics=("second", "second-dlq"),
        letter_topic="second-dlq",
    ),
    publications=(_SILVER, _GOLD),
    masks={_TWINS[spec]: mask for spec, mask in EDITS.masks.items() if mask.told_by is None},
)
