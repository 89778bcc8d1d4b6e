"""Captures: recorded streams as files, ``.sse[.gz]`` (the wire as sent) or ``.jsonl[.gz]`` (one event a line).

That is what is written. What is read is known by its content, not by its name: besides these two a JSON array, JSON over several
lines, a byte order mark, a saved HTTP head in front, lines that end with CR alone. What is none of them is refused before the run
in words that say what it looks like. Files are streamed, never loaded; a line has a largest size, so that a small damaged or
hostile file cannot fill the memory.
"""

import gzip
import hashlib
import io
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

import orjson

from producer import refusals
from producer.exceptions import SourceError
from producer.sse import ERROR, MESSAGE, Frame, FrameReader

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Longest line of a capture, bytes: real events stay below 1 MB."""

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".sse", ".sse.gz")
"""What a capture that is written may be called."""

_HEAD_BYTES: Final = 256 * 1024
_PIECE_BYTES: Final = 256 * 1024
_LOOK_LINES: Final = 20
_LOOK_BYTES: Final = 2_000
_TOLD_ERRORS: Final = 3

_BOM: Final = b"\xef\xbb\xbf"
_PACKED: Final = {
    b"\x28\xb5\x2f\xfd": "zstd: unpack it with 'zstd -d'",
    b"BZh": "bzip2: unpack it with 'bunzip2'",
    b"\xfd7zXZ\x00": "xz: unpack it with 'unxz'",
    b"PK\x03\x04": "a zip archive: unpack it with 'unzip'",
    b"7z\xbc\xaf": "a 7z archive: unpack it with '7z x'",
}
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_FIELD: Final = re.compile(rb":|(?:event|id|data|retry)(?::|[\r\n]|$)")
_HTTP: Final = re.compile(rb"HTTP/[0-9.]+ [0-9]{3}[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n")
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BRACES: Final = re.compile(_STRING + rb'|[{}"]', re.DOTALL)
_BETWEEN: Final = re.compile(rb"[\s,\[\]]*")
_OTHER_VALUE: Final = re.compile(_STRING + rb"|[^,\r\n\[\]{]+|.", re.DOTALL)


@dataclass(frozen=True)
class Inspection:
    """What a capture holds.

    Attributes:
        sha256: its identity.
        frames: how many events, broken ones included.
        remarks: what the user ought to know before the run, a line each.
    """

    sha256: str
    frames: int
    remarks: tuple[str, ...] = ()


def read(path: Path) -> Iterator[Frame]:
    """The events of a capture in their order; blank lines, comments and frames of another kind are none.

    Raises:
        SourceError: the path is wrong, the file is of no kind that can be read, the gzip is damaged, a line is too long.
    """
    return (frame for frame in _frames(path) if frame.kind == MESSAGE)


def inspect(path: Path) -> Inspection:
    """Read a capture to its end, so that a damaged one is refused before anything of it is used.

    Raises:
        SourceError: as ``read``, and if the capture holds no event, or is being written.
    """
    before = _state(path)
    frames = 0
    looks = _Looks()
    errors: list[str] = []
    for frame in _frames(path):
        if frame.kind == MESSAGE:
            frames += 1
            looks.see(frame.data)
        elif frame.kind == ERROR:
            errors.append(refusals.from_frame(frame.data))
    if not frames:
        said = f' (it tells of an error: "{errors[0]}")' if errors else ""
        raise SourceError(f"{path} holds no event{said}: give a capture made by 'wikistream record', or another file")
    if kind := looks.like_another_kind():
        raise SourceError(f"{path}: 0 of {looks.lines} lines are events: the file looks like {kind}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _state(path) != before:
        raise SourceError(f"{path} is being written: wait until it is complete, or give a copy of it")
    told = [f'the capture reports an error of its stream: "{text}"' for text in errors[:_TOLD_ERRORS]]
    if len(errors) > _TOLD_ERRORS:
        told.append(f".. and {len(errors) - _TOLD_ERRORS} more")
    return Inspection(digest, frames, tuple(told))


class _Looks:
    """What a file without a single JSON object looks like."""

    def __init__(self) -> None:
        self.lines = 0
        self._an_event = False
        self._events_within = False
        self._first: list[bytes] = []

    def see(self, data: bytes) -> None:
        """Look at one more frame; nothing more is to be known once there is an event."""
        if self._an_event:
            return
        self._an_event = _is_object(data)
        lines = data.split(b"\n")
        self.lines += len(lines)
        self._events_within = self._events_within or (len(lines) > 1 and any(map(_is_object, lines)))
        self._first += [line[:_LOOK_BYTES].strip() for line in lines[: _LOOK_LINES - len(self._first)]]

    def like_another_kind(self) -> str | None:
        """What the file is, and what helps; None if it holds events, or broken ones, which become dead letters."""
        if self._an_event:
            return None
        if self._events_within:
            return (
                "the data: lines of an event stream without the blank lines between them: write one event a line with "
                "\"sed -n 's/^data: *//p'\""
            )
        if any(line.startswith(b"{") for line in self._first):
            return None
        text = b"\n".join(self._first)
        start = text[:200].lower()
        if not _is_utf8(text) or b"\0" in text:
            return "binary data, not text"
        if start.startswith((b"<!doctype html", b"<html")):
            return "a web page: check the address that it was saved from"
        if start.startswith(b"<"):
            return "XML: events are JSON objects"
        if any(b'{"' in line for line in self._first):
            return "lines with a text in front of the JSON: cut it away, so that each line begins with {"
        if _is_json(self._first[0]):
            return "JSON without objects: events are JSON objects with meta, type and timestamp"
        return "a table or plain text: events are JSON objects, one a line"


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
                self._file.write(b" ".join(frame.data.splitlines()) + b"\n")  # in JSON a line end is a blank
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
    suffix = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    if suffix.lower() not in SUFFIXES:
        raise SourceError(f"{path} is no name of a capture: it must end in {', '.join(SUFFIXES)}")
    return suffix.lower()


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change of a regular file.

    Raises:
        SourceError: there is none, or it is not one.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"{path} cannot be read ({reason}): {_near(path)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise SourceError(f"{path} is a folder and cannot be read as a capture: give a file{_captures_in(path)}")
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(
            f"{path} is a pipe or a device, and a capture is read more than once: save it to a file first, "
            "e.g. cat PIPE > events.jsonl"
        )
    return found.st_size, found.st_mtime_ns


def _near(path: Path) -> str:
    """What may have been meant by a path that leads nowhere."""
    folder = next((parent for parent in path.parents if _is_folder(parent)), None)
    if folder is None or folder != path.parent:
        return f"there is no folder {path.parent}" + (f", only {folder}" if folder else "")
    try:
        names = sorted(entry.name for entry in islice(folder.iterdir(), 10_000))
    except OSError:
        return "check the path and its rights"
    lower = {name.lower(): name for name in names}
    close = get_close_matches(path.name.lower(), lower, n=1, cutoff=0.7)
    return f"did you mean {folder / lower[close[0]]}?" if close else "check the path and its rights"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _captures_in(folder: Path) -> str:
    try:
        names = sorted(
            entry.name for entry in islice(folder.iterdir(), 10_000) if entry.name.lower().endswith(SUFFIXES)
        )
    except OSError:
        names = []
    return f", e.g. {folder / names[0]}" if names else ""


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    _state(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 18)) if packed else file
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


def _frames(path: Path) -> Iterator[Frame]:
    with _opened(path) as file:
        head = file.read(_HEAD_BYTES)
        _refuse_other_encodings(path, head)
        head = head.removeprefix(_BOM)
        while found := _HTTP.match(head):  # one for each redirect and proxy
            head = head[found.end() :].removeprefix(_BOM)
        pieces = _pieces(head, file)
        text = head.lstrip()
        if _FIELD.match(text):
            yield from _sse_frames(path, pieces)
        elif _is_document(text):
            yield from _json_values(path, pieces)
        else:
            yield from _lines(path, pieces, b"\n" if b"\n" in head or b"\r" not in head else b"\r")


def _pieces(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield head
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _refuse_other_encodings(path: Path, head: bytes) -> None:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise SourceError(f"{path} is packed with {name}, then give what comes out of it; gzip is read as it is")
    if head.startswith(_WIDE) or (b"\0" in head[:200] and head[:200].count(b"\0") * 3 > len(head[:200])):
        raise SourceError(
            f"{path}: 0 lines are events: the file looks like UTF-16 text, as '>' of Windows PowerShell writes it: "
            "convert it with 'iconv -f UTF-16 -t UTF-8'"
        )


def _is_document(text: bytes) -> bool:
    """Whether a JSON text spans lines: an array, or objects written for people. One event a line is what it is not."""
    first, *rest = _LINE_END.split(text, maxsplit=1)
    following = rest[0].lstrip() if rest else b""
    if re.match(rb"\[\s*([{\]]|$)", text):
        return not following or not _is_json(first)
    return text.startswith(b"{") and following.startswith((b'"', b"}")) and not _is_json(first)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _is_object(text: bytes) -> bool:
    return text.lstrip().startswith(b"{") and _is_json(text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"  # the look was cut there
    return True


def _too_long(path: Path, what: str) -> SourceError:
    return SourceError(f"{path} has {what} of more than {MAX_LINE_BYTES} bytes: it is no capture of events, or damaged")


def _lines(path: Path, pieces: Iterator[bytes], end: bytes) -> Iterator[Frame]:
    """One event a line."""
    pending = bytearray()
    number = 0
    for piece in pieces:
        *lines, rest = piece.split(end)
        if lines and pending:
            lines[0] = bytes(pending) + lines[0]
            pending.clear()
        for line in lines:
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise _too_long(path, f"a line {number}")
            if line.strip():
                yield Frame(line.rstrip(b"\r\n"))
        pending += rest
        if len(pending) > MAX_LINE_BYTES:
            raise _too_long(path, f"a line {number + 1}")
    if pending.strip():
        yield Frame(bytes(pending).rstrip(b"\r\n"))


def _sse_frames(path: Path, pieces: Iterator[bytes]) -> Iterator[Frame]:
    """The last frame counts even without the blank line behind it: captures are often cut there."""
    reader = FrameReader()
    for piece in pieces:
        for frame in reader.feed(piece):
            if frame.cut:
                raise _too_long(path, "a frame")
            yield frame
    if last := reader.finish():
        if last.cut:
            raise _too_long(path, "a frame")
        yield last


def _json_values(path: Path, pieces: Iterator[bytes]) -> Iterator[Frame]:
    """The objects of a JSON array, or of JSON texts one behind the other; what else stands there is handed on as it is."""
    text = b""
    for piece in pieces:
        text += piece
        done = 0
        while value := _next_value(text, done, last=False):
            yield Frame(text[slice(*value)])
            done = value[1]
        text = text[done:]
        if len(text) > MAX_LINE_BYTES:
            raise _too_long(path, "an object")
    done = 0
    while value := _next_value(text, done, last=True):
        yield Frame(text[slice(*value)].rstrip())
        done = value[1]


def _next_value(text: bytes, start: int, *, last: bool) -> tuple[int, int] | None:
    """Where the next value begins and ends; None if there is none, or its end has yet to be read."""
    found = _BETWEEN.match(text, start)
    begin = found.end() if found else start
    if begin == len(text):
        return None
    if text[begin : begin + 1] != b"{":
        other = _OTHER_VALUE.match(text, begin)
        end = other.end() if other else len(text)
        return (begin, end) if end < len(text) or last else None
    depth = 0
    for token in _BRACES.finditer(text, begin):
        if token[0] == b'"':
            break  # a text without its end
        depth += {b"{": 1, b"}": -1}.get(token[0], 0)
        if depth == 0:
            return begin, token.end()
    return (begin, len(text)) if last else None
