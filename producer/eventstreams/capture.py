"""Captures: recorded streams as files, ``.sse[.gz]`` (the wire as sent) or ``.jsonl[.gz]`` (one event a line).

Files are streamed, never loaded; a line has a largest size, so that a small damaged or hostile file cannot fill the memory.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from producer.exceptions import SourceError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Longest line of a capture, bytes: real events stay below 1 MB."""

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".sse", ".sse.gz")


@dataclass(frozen=True, slots=True)
class Frame:
    """One recorded event.

    Attributes:
        data: its bytes as received.
        event_id: the frame's ``id:`` as received; None in a ``.jsonl`` capture, which keeps none.
    """

    data: bytes
    event_id: bytes | None = None


@dataclass(frozen=True)
class Inspection:
    """What a capture holds: its identity and how many events."""

    sha256: str
    frames: int


def read(path: Path) -> Iterator[Frame]:
    """The frames of a capture in their order; blank lines and comments are no frames.

    Raises:
        SourceError: the path is wrong, the name has no known suffix, the gzip is damaged, a line is too long.
    """
    sse = ".sse" in _suffix(path)
    lines = _lines(path)
    return _sse_frames(lines) if sse else (Frame(line) for line in lines if line.strip())


def inspect(path: Path) -> Inspection:
    """Read a capture to its end, so that a damaged one is refused before anything of it is used.

    Raises:
        SourceError: as ``read``, and if the capture holds no event.
    """
    frames = sum(1 for _ in read(path))
    if not frames:
        raise SourceError(f"{path} holds no event: give a capture made by 'wikistream record', or another file")
    with path.open("rb") as file:
        return Inspection(hashlib.file_digest(file, "sha256").hexdigest(), frames)


class Writer:
    """Writes a capture. The file gets its name only when it is complete; whatever ends the ``with`` block, what was received
    up to then is kept.

    Raises:
        SourceError: the name has no known suffix, the file exists, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._sse = ".sse" in _suffix(path)
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self.frames = 0
        if path.exists():
            raise SourceError(f"{path} exists: choose another name or remove it")
        try:
            file = self._partial.open("wb")
        except OSError as error:
            raise SourceError(f"{path} cannot be written ({error.strerror}): choose another folder") from None
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="wb") if path.suffix == ".gz" else file)
        self._raw = file
        if self._sse:
            self._file.write(b":ok\n\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writable():
            self._file.close()
            self._raw.close()
        if self.frames:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        with self._writable():
            if self._sse:
                self._file.write(render(frame.event_id or b"[]", frame.data))
            else:
                self._file.write(frame.data + b"\n")
        self.frames += 1

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"{self._path} cannot be written ({error.strerror}): make room or choose another folder"
            ) from None


def render(event_id: bytes, data: bytes) -> bytes:
    """One frame as it goes over the wire. A line end inside ``data`` starts a further ``data:`` line, as the standard has it."""
    if b"\r" in data or b"\n" in data:
        data = b"\ndata: ".join(data.splitlines())
    return b"event: message\nid: %b\ndata: %b\n\n" % (event_id, data)


def _suffix(path: Path) -> str:
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if suffix not in SUFFIXES:
        raise SourceError(f"{path} is no capture: its name must end in {', '.join(SUFFIXES)}")
    return suffix


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                yield cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 18))
            else:
                yield file
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise SourceError(
                f"{path} is damaged ({error}): copy it again, or unpack what can be read with 'zcat'"
            ) from None
        raise SourceError(f"{path} cannot be read ({error.strerror}): check the path and its rights") from None
    except (EOFError, zlib.error) as error:
        raise SourceError(
            f"{path} is damaged ({error}): copy it again, or unpack what can be read with 'zcat'"
        ) from None


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their ends."""
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise SourceError(
                    f"{path} has a line {number} of more than {MAX_LINE_BYTES} bytes: it is no capture of events, or damaged"
                )
            yield line.rstrip(b"\r\n")


def _sse_frames(lines: Iterator[bytes]) -> Iterator[Frame]:
    """Parse frames. The last one counts even without the blank line behind it: captures are often cut there."""
    event_id: bytes | None = None
    data: list[bytes] = []
    size = 0
    for line in lines:
        if not line:
            if data:
                yield Frame(b"\n".join(data), event_id)
            data, size = [], 0
            continue
        size += len(line) + 1
        if size > MAX_LINE_BYTES:
            raise SourceError(
                f"a frame of the capture has more than {MAX_LINE_BYTES} bytes: it is no capture of events, or damaged"
            )
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"id":
            event_id = value.removeprefix(b" ")
    if data:
        yield Frame(b"\n".join(data), event_id)
