"""Server-sent events: bytes to frames, as the WHATWG standard says. One reader for live streams and captures alike.

It is fed with bytes as they arrive and gives each frame as soon as its blank line is there. What it holds is bounded: whatever a
server or a file sends, a frame is cut to ``MAX_FRAME_BYTES``. ``retry:`` is not obeyed: when to connect again is the reader's
decision, not the server's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""A longer line, or the data of one frame together, is cut to this, bytes; as an event it is oversized anyway."""

MESSAGE: Final = "message"
"""The kind of a frame without ``event:``; EventStreams sends its events as this one."""

ERROR: Final = "error"
"""The kind in which EventStreams says why it is about to close the connection."""

_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_KIND: Final = 100


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that holds data.

    Attributes:
        data: its bytes as received.
        event_id: the last ``id:`` so far as received; None before the first, and in a capture that keeps none.
        kind: its ``event:``.
        cut: whether the data was longer than ``MAX_FRAME_BYTES``.
    """

    data: bytes
    event_id: bytes | None = None
    kind: str = MESSAGE
    cut: bool = False


class FrameReader:
    """Reads one stream from its first byte on."""

    def __init__(self) -> None:
        self._started = False
        self._after_cr = False
        self._line = bytearray()
        self._id: bytes | None = None
        self._kind = MESSAGE
        self._data: list[bytes] = []
        self._size = 0
        self._cut = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take the next bytes and give the frames that they complete."""
        if not data:
            return
        if self._after_cr or b"\r" in data:
            data = self._unified(data)
        *lines, rest = data.split(b"\n")
        if lines and self._line:
            self._keep(lines[0])
            lines[0] = bytes(self._line)
            self._line.clear()
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                yield self._frame()
            else:
                self._kind = MESSAGE
            self._started = True
        self._keep(rest)

    def finish(self) -> Frame | None:
        """The frame that the end cut off before its blank line, if it holds data: in a file it counts, on a connection not."""
        if self._line:
            self._field(bytes(self._line))
        return self._frame() if self._data else None

    def _unified(self, data: bytes) -> bytes:
        """LF in place of CR and CR LF, which two pieces may share."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, part: bytes) -> None:
        """Gather a line that arrives in pieces; one byte more than the limit tells that it is too long."""
        self._line += part[: MAX_FRAME_BYTES + 1 - len(self._line)]

    def _field(self, line: bytes) -> None:
        if not self._started:
            line = line.removeprefix(_BOM)
        too_long = len(line) > MAX_FRAME_BYTES
        name, _, value = line[:MAX_FRAME_BYTES].partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if self._data and self._size + len(line) > MAX_FRAME_BYTES:
                self._cut = True
            else:
                self._cut = self._cut or too_long
                self._size += len(line) + 1
                self._data.append(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"event":
            self._kind = value[:_LONGEST_KIND].decode(errors="replace") or MESSAGE

    def _frame(self) -> Frame:
        frame = Frame(b"\n".join(self._data), self._id, self._kind, self._cut)
        self._data, self._size, self._cut, self._kind = [], 0, False, MESSAGE
        return frame
