"""Redrive: dead letters judged again by the contract of today, each of them at most once.

What becomes of a letter is one of: an event for ``raw-events``; a new letter for ``dlq-events`` with one attempt more; nothing,
because its domain is not followed or it is a canary. That, and the note that the letter has been dealt with, are one Kafka
transaction, so a redrive that is killed at any moment is simply started again. There is one redrive at a time: a newer one fences
the older, as with producers. An error of Kafka ends the redrive; it never counts as an attempt.

The notes are records of ``sse-cursor``: key ``redrive:<topic>:<partition>:<block>``, value the bitmap (base64) of the letters of
that block of 65,536 offsets that have been dealt with. So they stay small for ever, and are there when the letters' own records
have long expired. Letters of topics that were made after Kafka's data was lost have the number of that generation in front of the
topic, because offsets begin anew there.
"""

import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, get_args

import orjson

from producer.contract import Accepted, Contract, Reason, Rejected
from producer.envelope import Envelope, SourceMode
from producer.failpoints import Failpoint
from producer.settings import ProducerSettings
from producer.sink import TRANSACTION_SECONDS, Record, TransactionalSink, read_newest
from producer.topics import DLQ_EVENTS, RAW_EVENTS, SSE_CURSOR

IDENTITY: Final = "redrive"
"""Of the redrive among the writers: its transactional id is made from it, and its letters name it as their source."""

_BLOCK: Final = 65_536
_PREFIX: Final = f"{IDENTITY}:".encode()
_CONTRACT_REASONS: Final = frozenset(reason.value for reason in Reason)


class Place(NamedTuple):
    """Where the record of a letter stands in Kafka, which is also the letter's name.

    Attributes:
        generation: how often Kafka's data had been lost before it was written.
    """

    topic: str
    partition: int
    offset: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as ``bronze.dead_letter`` keeps it.

    Attributes:
        place: of its record.
        attempts: how often it has been redriven before.
        source_mode: kind of the source; None where the record did not say.
        original: from ``dlq-events`` the line's bytes, from ``raw-events`` the whole record's.
    """

    place: Place
    attempts: int
    source_mode: str | None
    original: bytes


class Fate(StrEnum):
    """What becomes of a letter that is redriven."""

    ACCEPTED = "accepted"
    """An event now."""
    REJECTED = "rejected"
    """A letter again, with one attempt more."""
    SKIPPED = "skipped"
    """A canary, or a domain that is not followed: to be counted, not stored."""


def is_redrivable(reason: str) -> bool:
    """Whether the contract rejected the line. A record damaged on its way holds no line that could be judged again."""
    return reason in _CONTRACT_REASONS


class DealtWith:
    """The letters that have been dealt with.

    Args:
        notes: the records of ``sse-cursor`` that hold them, by key.
    """

    def __init__(self, notes: Mapping[bytes, bytes]) -> None:
        self._bits = {
            key: int.from_bytes(b64decode(orjson.loads(value)["bitmap"]), "little") for key, value in notes.items()
        }

    @classmethod
    def read(cls, bootstrap_servers: str) -> "DealtWith":
        """As Kafka has them now.

        Raises:
            KafkaError: the cluster cannot be read.
        """
        return cls(read_newest(bootstrap_servers, lambda key: key.startswith(_PREFIX)))

    def __contains__(self, place: Place) -> bool:
        key, bit = _noted_at(place)
        return bool(self._bits.get(key, 0) >> bit & 1)

    def added(self, places: Sequence[Place]) -> list[Record]:
        """Add the letters; returns the notes that have changed, as records."""
        changed = set()
        for place in places:
            key, bit = _noted_at(place)
            self._bits[key] = self._bits.get(key, 0) | 1 << bit
            changed.add(key)
        return [Record(SSE_CURSOR, key, self._note(key)) for key in sorted(changed)]

    def _note(self, key: bytes) -> bytes:
        bits = self._bits[key]
        bitmap = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        return orjson.dumps({"letters": bits.bit_count(), "bitmap": b64encode(bitmap).decode()})


class Judge:
    """Says what becomes of letters, and writes nothing.

    Args:
        settings: the followed domains and the greatest size of an event, as the producer has them now.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self._environment = settings.env
        self._contract = Contract(settings.followed, settings.max_event_bytes)

    def judge(self, letter: Letter) -> tuple[Fate, Record | None]:
        """The letter's fate, and the record that it becomes."""
        line = _line(letter)
        verdict = self._contract.judge(line)
        # The event keeps the kind of its source. It is accepted now, and so it is late: that is the truth about it.
        mode: SourceMode = letter.source_mode if letter.source_mode in get_args(SourceMode) else "replay"  # type: ignore[assignment]
        envelope = Envelope(self._environment, IDENTITY, mode, attempts=letter.attempts + 1)
        if isinstance(verdict, Accepted):
            value = envelope.event_value(verdict.event_id, line.decode())
            return Fate.ACCEPTED, Record(RAW_EVENTS, verdict.event_id.encode(), value)
        if isinstance(verdict, Rejected):
            return Fate.REJECTED, Record(DLQ_EVENTS, None, envelope.rejected_value(verdict, line))
        return Fate.SKIPPED, None


class Redriver:
    """The only writer of redriven letters. Creating it fences any earlier one and ends what that one left open.

    Attributes:
        dealt_with: the letters that need not be looked at again, as of the fencing and of the commits since.

    Raises:
        KafkaError: the cluster cannot be reached.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self._judge = Judge(settings)
        self._sink = TransactionalSink(settings.bootstrap_servers, IDENTITY, Failpoint(settings.failpoint))
        # After the fencing: what an earlier redrive has committed is in it, and it cannot commit any more.
        self.dealt_with = DealtWith.read(settings.bootstrap_servers)

    def redrive(self, letters: Sequence[Letter]) -> list[Fate]:
        """Deal with the letters, in one transaction; returns the fate of each.

        Raises:
            FencedError: a newer redrive has taken over; nothing of these letters is done.
            KafkaError: it could not be done; nothing of these letters is done.
        """
        judged = [self._judge.judge(letter) for letter in letters]
        records = [record for _, record in judged if record is not None]
        notes = self.dealt_with.added([letter.place for letter in letters])
        give_up = time.monotonic() + TRANSACTION_SECONDS
        self._sink.commit_records([*records, *notes], lambda: time.monotonic() > give_up)
        return [fate for fate, _ in judged]

    def close(self) -> None:
        """Let go of the cluster after the last commit."""
        self._sink.close()


def _noted_at(place: Place) -> tuple[bytes, int]:
    block, bit = divmod(place.offset, _BLOCK)
    generation = f"{place.generation}:" if place.generation else ""
    return _PREFIX + f"{generation}{place.topic}:{place.partition}:{block}".encode(), bit


def _line(letter: Letter) -> bytes:
    """The line of the stream: the letter itself, or what is in the envelope that Bronze could not take for an event."""
    if letter.place.topic == DLQ_EVENTS:
        return letter.original
    # Spark reads some texts as JSON that are none: they are judged as they stand, and stay letters.
    try:
        data = orjson.loads(letter.original)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return letter.original
    return data.encode() if isinstance(data, str) else orjson.dumps(data)
