"""Dead letters back into the stream: which letters of the lake are due, and their way through ``producer.redrive``.

The lake says which letters there are, Kafka which of them have been dealt with. What a redrive writes comes back through
Bronze like any other record: an event becomes a row (or a duplicate, if it has come by another way meanwhile), a letter that
failed again a letter with one attempt more. So the totals of Bronze hold without knowing of redrives.
"""

from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final, NamedTuple

from duckdb import DuckDBPyConnection

from producer.redrive import DealtWith, Fate, Judge, Letter, Place, Redriver, is_redrivable
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import open_views
from wikistream_assets.settings import Settings
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.tables.spec import TableSpec

_BATCH_LETTERS: Final = 500
_BATCH_BYTES: Final = 32 * 1024 * 1024
"""Letters, and bytes of their originals, in one transaction: a letter may hold megabytes."""

_GENERATION: Final = (
    "len(list_filter(CAST(? AS TIMESTAMPTZ[]), lambda lost: lost <= CAST(bronze_processed_at AS TIMESTAMPTZ)))"
)
"""SQL: how often Kafka's data had been lost when the letter was written; its parameter is ``Lakehouse.kafka_losses``."""


@dataclass(frozen=True)
class Selection:
    """Which of the waiting letters to redrive; all of them by default.

    Attributes:
        reason: of this reason class only.
        since: rejected at this time or later.
        place: this letter alone; of every generation, if more than one has it.
        limit: at most so many, oldest first.
        given_up: also those that have failed too often.
    """

    reason: str | None = None
    since: datetime | None = None
    place: Place | None = None
    limit: int | None = None
    given_up: bool = False


@dataclass(frozen=True)
class RedriveReport:
    """What became of the selected letters, and what is left.

    Attributes:
        accepted: events now.
        rejected: letters again, with one attempt more; those that are now given up included.
        skipped: canaries and domains that are not followed.
        now_given_up: of the rejected, those that are not tried again by themselves.
        waiting: letters that were not selected, e.g. beyond the limit; the next redrive finds them.
        given_up: letters left alone because they have failed too often.
        damaged: letters left alone because their records were damaged on the way: there is no line to judge.
    """

    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    now_given_up: int = 0
    waiting: int = 0
    given_up: int = 0
    damaged: int = 0

    @property
    def redriven(self) -> int:
        """Letters that were judged again."""
        return self.accepted + self.rejected + self.skipped


class _Entry(NamedTuple):
    """A letter without its original."""

    place: Place
    attempts: int
    size: int


@dataclass(frozen=True)
class _Letters:
    """A stream's dead letters as SQL sees them, and when Kafka's data was lost."""

    connection: DuckDBPyConnection
    table: TableSpec
    losses: list[str]


@dataclass(frozen=True)
class _Chosen:
    entries: Sequence[_Entry]
    waiting: int
    given_up: int
    damaged: int


def redrive(
    lake: Lakehouse, stream: Stream, settings: Settings, selection: Selection, *, dry_run: bool = False
) -> RedriveReport:
    """Judge the selected dead letters of a stream again and send each where it belongs, once.

    Args:
        dry_run: only say what would become of them.

    Raises:
        KafkaError: Kafka cannot be reached or failed on the way; batches committed before stay done, the others are untouched.
        FencedError: a newer redrive has taken over.
    """
    table = stream.ingest.dead_letters
    with open_views(lake, [table]) as connection:
        letters = _Letters(connection, table, lake.kafka_losses(table))
        if dry_run:
            dealt_with = DealtWith.read(settings.bootstrap_servers)
            judge = Judge(settings)
            chosen = _choose(letters, selection, dealt_with, settings.dlq_max_attempts)
            tried = ((letter, judge.judge(letter)[0]) for batch in _batches(letters, chosen) for letter in batch)
            return _report(chosen, Counter((fate, letter.attempts) for letter, fate in tried), settings)
        redriver = Redriver(settings)
        chosen = _choose(letters, selection, redriver.dealt_with, settings.dlq_max_attempts)
        done: Counter[tuple[Fate, int]] = Counter()
        for batch in _batches(letters, chosen):
            done.update((fate, letter.attempts) for letter, fate in zip(batch, redriver.redrive(batch), strict=True))
        redriver.close()
        return _report(chosen, done, settings)


def _choose(letters: _Letters, selection: Selection, dealt_with: DealtWith, max_attempts: int) -> _Chosen:
    rows = letters.connection.execute(
        f"SELECT kafka_topic, kafka_partition, kafka_offset, {_GENERATION}, reason, attempts, rejected_at, strlen(original) "  # noqa: S608
        f"FROM {letters.table.identifier} WHERE original IS NOT NULL ORDER BY 4, 1, 2, 3",
        [letters.losses],
    ).fetchall()
    entries: list[_Entry] = []
    left: Counter[str] = Counter()
    for topic, partition, offset, generation, reason, attempts, rejected_at, size in rows:
        place = Place(topic, partition, offset, generation)
        if place in dealt_with:
            continue
        wanted = (
            selection.reason in (None, reason)
            and (selection.place is None or selection.place[:3] == place[:3])
            and (selection.since is None or (rejected_at is not None and rejected_at >= selection.since))
        )
        if not is_redrivable(reason):
            left["damaged"] += 1
        elif attempts >= max_attempts and not selection.given_up:
            left["given_up"] += 1
        elif not wanted or len(entries) == selection.limit:
            left["waiting"] += 1
        else:
            entries.append(_Entry(place, attempts, size or 0))
    return _Chosen(entries, left["waiting"], left["given_up"], left["damaged"])


def _batches(letters: _Letters, chosen: _Chosen) -> Iterator[list[Letter]]:
    """The chosen letters with their originals, in batches that fit into a transaction and into memory."""
    for _, of_partition in groupby(chosen.entries, key=lambda entry: entry.place._replace(offset=0)):
        places: list[Place] = []
        size = 0
        for entry in of_partition:
            if places and (len(places) == _BATCH_LETTERS or size + entry.size > _BATCH_BYTES):
                yield _read(letters, places)
                places, size = [], 0
            places.append(entry.place)
            size += entry.size
        yield _read(letters, places)


def _read(letters: _Letters, places: Sequence[Place]) -> list[Letter]:
    """The letters at ``places``, which differ in their offsets alone."""
    first = places[0]
    rows = letters.connection.execute(
        f"SELECT kafka_offset, attempts, source_mode, original FROM {letters.table.identifier} "  # noqa: S608
        "WHERE kafka_topic = ? AND kafka_partition = ? AND kafka_offset IN (SELECT unnest(?)) "
        f"AND {_GENERATION} = ? ORDER BY kafka_offset",
        [first.topic, first.partition, [place.offset for place in places], letters.losses, first.generation],
    ).fetchall()
    return [
        Letter(first._replace(offset=offset), attempts, source_mode, _decoded(original))
        for offset, attempts, source_mode, original in rows
    ]


def _decoded(original: str) -> bytes:
    try:
        return b64decode(original, validate=True)
    except ValueError:  # no base64, or not even ASCII: a letter that the producer did not write
        return original.encode()


def _report(chosen: _Chosen, done: Counter[tuple[Fate, int]], settings: Settings) -> RedriveReport:
    by_fate: Counter[Fate] = Counter()
    now_given_up = 0
    for (fate, attempts), number in done.items():
        by_fate[fate] += number
        if fate is Fate.REJECTED and attempts + 1 >= settings.dlq_max_attempts:
            now_given_up += number
    return RedriveReport(
        accepted=by_fate[Fate.ACCEPTED],
        rejected=by_fate[Fate.REJECTED],
        skipped=by_fate[Fate.SKIPPED],
        now_given_up=now_given_up,
        waiting=chosen.waiting,
        given_up=chosen.given_up,
        damaged=chosen.damaged,
    )
