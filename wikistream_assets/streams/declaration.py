"""What a stream is to the engine: its tables, what they are built from, and the functions that build them."""

import importlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from wikistream_assets.quality.criteria import Criteria
from wikistream_assets.tables.spec import TableSpec

if TYPE_CHECKING:  # who reads the lake needs the tables of a declaration, and no Spark
    from pyspark.sql import DataFrame

    from wikistream_assets.transforms.marks import Rejection

RAW_LAYER: Final = "bronze"
"""The layer that a stream itself writes."""

Hour = tuple[str, int]
"""UTC date (yyyy-MM-dd) and hour (0-23) of an event."""


@dataclass(frozen=True)
class Function:
    """A function by its name, ``module:function``: a declaration loads nothing before it is carried out."""

    name: str

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.loaded(*arguments, **named)

    @property
    def loaded(self) -> Any:
        """The function itself."""
        module, _, function = self.name.partition(":")
        return getattr(importlib.import_module(module), function)


@dataclass(frozen=True)
class Ingest:
    """How a stream's records become the rows of its raw table.

    Attributes:
        table: where the events arrive, as they were received.
        dead_letters: where the records go that are no events.
        topics: Kafka topics that are read.
        letter_topic: the one of them whose records the producer has rejected already.
        parse: reads records of Kafka, one row for each: the raw table's columns and those of a letter. ``reason`` is null in the
            rows that are events.
        stamp: adds to parsed rows when they were processed.
        letters: the parsed rows that are no events, columns as in ``dead_letters``.
        parity: the rule of the raw table that all records that were read are found again.
        on_nothing: check -> what it means that it has looked at no row.
    """

    table: TableSpec
    dead_letters: TableSpec
    topics: tuple[str, ...]
    letter_topic: str
    parse: Callable[["DataFrame"], "DataFrame"]
    stamp: Callable[["DataFrame", datetime], "DataFrame"]
    letters: Callable[["DataFrame"], "DataFrame"]
    parity: str
    on_nothing: Mapping[str, str]


class Split(Protocol):
    """Cleans rows of the upstream table and says of each, in the column ``FAILED_RULES``, why it may not be published."""

    def __call__(
        self,
        bronze: "DataFrame",
        /,
        *,
        processed_at: datetime,
        criteria: Criteria,
        rejections: "Sequence[Rejection]",
        existing_ids: "DataFrame | None",
        copies: bool,
    ) -> "DataFrame":
        """
        Args:
            bronze: the rows; those with ``REJECTED_BY`` were rejected upstream.
            processed_at: time of the attempt.
            criteria: what counts as what.
            rejections: of cleaned rows.
            existing_ids: column ``event_id`` of what the first table holds already on the dates of ``bronze``.
            copies: whether rows may have both event id and place in Kafka in common.
        """


@dataclass(frozen=True)
class Append:
    """New rows are appended: the good ones to a publication's first table, the others to its second, its quarantine.

    Attributes:
        split: tells them apart.
        set_aside: name of the quarantine's column for the time of the attempt.
        parity: the rule of the first table that all rows of the upstream table are found again in the two.
        accepted_with: reason of the quarantine -> checks of the upstream table that look for the same: who accepts such a breach
            there need not accept it again.
    """

    split: Split
    set_aside: str
    parity: str
    accepted_with: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Parity:
    """What must be found in a table, and what is.

    Attributes:
        rule: the rule of the table that the comparison is for.
        expected / found: name -> number; of whatever is compared, an hour or a day.
    """

    table: TableSpec
    rule: str
    expected: Counter[str]
    found: Counter[str]


class Compute(Protocol):
    """Computes the tables of a publication for some dates; what it holds in memory meanwhile goes with the context."""

    def __call__(
        self,
        rows: "DataFrame",
        earlier: "DataFrame",
        /,
        *,
        watermark: datetime,
        allowed_lateness_hours: int,
        processed_at: datetime,
        criteria: Criteria,
        user_key: bytes,
    ) -> "AbstractContextManager[Mapping[TableSpec, DataFrame]]":
        """
        Args:
            rows: all rows of the upstream table on the dates.
            earlier: those of the dates that ``Recompute.reads`` names besides.
            watermark: newest event time seen in the lake.
            allowed_lateness_hours: an hour is final when it ended this long before the watermark.
            processed_at: time of the attempt.
            criteria: what counts as what.
            user_key: the secret under which addresses are hashed.
        """


@dataclass(frozen=True)
class Recompute:
    """Dates that new rows touch are computed again, and take the place of what a publication's tables say about them.

    Attributes:
        compute: gives the tables.
        reads: the dates before the given ones whose rows are read to compute them.
        read_by: the dates after the given ones that are computed from their rows too.
        parities: compares the computed tables with the rows they were made from, counted by hour.
    """

    compute: Compute
    reads: Callable[[Collection[str]], set[str]]
    read_by: Callable[[Collection[str]], set[str]]
    parities: Callable[["Mapping[TableSpec, DataFrame]", Counter[Hour]], list[Parity]]


@dataclass(frozen=True)
class Publication:
    """Tables that are built from one range of an upstream table, audited together and published together.

    Attributes:
        layer: its name in steps, locks, pools and the audit trail.
        source: the raw table, of which a range reaches to what the gate has tagged, or the publication whose first table is read,
            up to what it has published.
        tables: the first leads: its position is the truth, the others are brought to it.
        build: how the tables are made from a range.
    """

    layer: str
    source: "TableSpec | Publication"
    tables: tuple[TableSpec, ...]
    build: Append | Recompute

    @property
    def leader(self) -> TableSpec:
        return self.tables[0]

    @property
    def upstream(self) -> TableSpec:
        """The table whose new snapshots are the range."""
        return self.source.leader if isinstance(self.source, Publication) else self.source


@dataclass(frozen=True)
class Mask:
    """How people are hidden in a table's old rows.

    Attributes:
        hide: gives the rows of a date without names, from these rows and the home's key; and, if ``told_by`` is set, from that
            table's rows of the date.
        told_by: a table that tells which names are people's. It is masked after this one.
    """

    hide: Callable[..., "DataFrame"]
    told_by: TableSpec | None = None


@dataclass(frozen=True)
class Stream:
    """A declared stream.

    Attributes:
        name: as steps and commands call it.
        ingest: how its events arrive.
        publications: in the order in which they are built from one another.
        masks: of the tables that name people.
    """

    name: str
    ingest: Ingest
    publications: tuple[Publication, ...]
    masks: Mapping[TableSpec, Mask]

    def __post_init__(self) -> None:
        kinds = [type(publication.build) for publication in self.publications]
        upstream = [publication.upstream.identifier for publication in self.publications]
        if kinds != [Append, Recompute] or upstream != [self.raw.identifier, self.publications[0].leader.identifier]:
            raise ValueError(
                f"{self.name}: publications: declare one that appends from {self.raw.identifier} and one that recomputes from "
                "its first table; the gates before a longer chain are not told apart yet"
            )

    @property
    def raw(self) -> TableSpec:
        """The table that its events arrive in."""
        return self.ingest.table

    @property
    def layers(self) -> dict[str, tuple[TableSpec, ...]]:
        """The tables by layer, in the order in which they are built from one another."""
        return {RAW_LAYER: (self.raw, self.ingest.dead_letters)} | {
            each.layer: each.tables for each in self.publications
        }

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        return tuple(spec for tables in self.layers.values() for spec in tables)

    def lease(self, layer: str) -> str:
        """The name under which a layer of this stream is held by one at a time."""
        return f"{self.name}.{layer}"

    def audited(self, layer: str) -> TableSpec:
        """The table whose snapshots the ranges of a layer's gate consist of."""
        return self.raw if layer == RAW_LAYER else self.publication(layer).upstream

    def publication(self, layer: str) -> Publication:
        """The publication called ``layer``. Raises KeyError if there is none."""
        return {publication.layer: publication for publication in self.publications}[layer]

    def publication_of(self, spec: TableSpec) -> Publication | None:
        """The publication that ``spec`` is part of; None for the tables that the stream itself writes."""
        return next((publication for publication in self.publications if spec in publication.tables), None)

    def made_from(self, spec: TableSpec) -> tuple[Publication, ...]:
        """The publications that read ``spec``."""
        return tuple(publication for publication in self.publications if publication.upstream is spec)
