"""What the server serves: a finite sequence of events, numbered from 0, that can be read from any number on."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from producer import position
from producer.envelope import SourceMode
from producer.eventstreams import capture
from producer.eventstreams.generator import FIRST_OFFSET, STREAM, TOPIC, Generator
from producer.sse import Frame
from producer.times import sent_ms

IDLE_TOPIC: Final = f"eqiad.{STREAM}"
"""The other data centre's topic: named in every id, at offset -1."""


class Recording(Protocol):
    """A source of the server.

    Attributes:
        identity: names exactly this content; the key of a producer's cursor.
        mode: what the producer is to tell about it.
    """

    @property
    def identity(self) -> str: ...

    @property
    def mode(self) -> SourceMode: ...

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """The frames from number ``first`` on."""
        ...


@dataclass(frozen=True)
class Synthetic:
    """The generator as a recording."""

    generator: Generator
    mode: SourceMode = "synthetic"

    @property
    def identity(self) -> str:
        return self.generator.identity

    def frames(self, first: int = 0) -> Iterator[Frame]:
        return (Frame(line.data) for line in self.generator.lines(first))


@dataclass(frozen=True)
class Captured:
    """A capture as a recording."""

    path: Path
    sha256: str
    mode: SourceMode = "replay"

    @property
    def identity(self) -> str:
        return f"capture:sha256={self.sha256}"

    def frames(self, first: int = 0) -> Iterator[Frame]:
        for number, frame in enumerate(capture.read(self.path)):
            if number >= first:
                yield frame


def offset_id(number: int) -> bytes:
    """The id of event ``number`` in a recording without ids of its own."""
    return (
        b'[{"topic":"%b","partition":0,"offset":-1},{"topic":"%b","partition":0,"offset":%d}]'
        % (IDLE_TOPIC.encode(), TOPIC.encode(), FIRST_OFFSET + number)
    )  # fmt: skip


def number_after_timestamp(recording: Recording, timestamp_ms: int) -> int:
    """Number of the first frame whose recorded id is at or after a timestamp; the number of frames if there is none."""
    number = -1
    for number, frame in enumerate(recording.frames()):  # the last number is used after the loop
        with suppress(ValueError):  # an id that is none says nothing
            stamps = [place.timestamp_ms for place in position.parse((frame.event_id or b"").decode()).values()]
            if any(stamp is not None and stamp >= timestamp_ms for stamp in stamps):
                return number
    return number + 1


def number_since(recording: Recording, since_ms: int) -> int:
    """Number of the first frame whose event was sent at or after a time; the number of frames if there is none."""
    number = -1
    for number, frame in enumerate(recording.frames()):  # as above
        sent = sent_ms(frame.data)
        if sent is not None and sent >= since_ms:
            return number
    return number + 1
