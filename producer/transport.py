"""How the bytes of a stream become lines for requests-sse: bounded, and never a broken character.

requests-sse decodes each line strictly. A connection cut inside a character, or one event that is not UTF-8, would end it with
``UnicodeDecodeError``, the latter again after each resume. So lines are made here: what a cut left unfinished is dropped, as the
SSE standard says; bytes that are no UTF-8 are replaced in the text, and the originals are kept for the dead letter.
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""A longer line, or the lines of one event together, are cut to this, bytes, so that no server can fill the memory; as an event
it is oversized anyway."""

MAX_DATA_LINES: Final = 1_000
"""An event is cut to this many lines: EventStreams sends one, and requests-sse copies all it has for each further one."""

_CHUNK_BYTES: Final = 256 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class SseResponse(requests.Response):
    """A response whose lines are fit for requests-sse."""

    def __init__(self) -> None:
        super().__init__()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._undecodable = False

    @property
    def original(self) -> bytes | None:
        """The bytes of the current frame's data if they are not UTF-8, else None. Valid until the next frame is asked for."""
        return b"\n".join(self._data) if self._undecodable else None

    def iter_lines(self, *_: Any, **__: Any) -> Iterator[bytes]:
        """Complete lines without their ends, each valid UTF-8."""
        pending = b""
        for chunk in self.iter_content(_CHUNK_BYTES):
            if len(pending) == MAX_LINE_BYTES and b"\n" not in chunk:
                continue  # more of a line that is cut already: not copied again for each chunk
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield self._checked(line.removesuffix(b"\r")[:MAX_LINE_BYTES])
                if not line:
                    self._data, self._data_bytes, self._undecodable = [], 0, False
            pending = pending[:MAX_LINE_BYTES]

    def _checked(self, line: bytes) -> bytes:
        if line.startswith(b"data:"):
            self._data_bytes += len(line)
            if self._data and (self._data_bytes > MAX_LINE_BYTES or len(self._data) == MAX_DATA_LINES):
                return b":"  # an event that never ends: requests-sse would keep every line of it
            self._data.append(line[5:].removeprefix(b" "))
        try:
            line.decode()
        except UnicodeDecodeError:
            self._undecodable = True
            return line.decode(errors="replace").encode()
        return line


class _Adapter(HTTPAdapter):
    response: SseResponse

    def build_response(self, *args: Any, **kwargs: Any) -> SseResponse:
        self.response = SseResponse()
        self.response.__dict__.update(super().build_response(*args, **kwargs).__dict__)
        return self.response


class SseSession(requests.Session):
    """One connection's session: sends the policy's User-Agent, gives requests-sse an ``SseResponse``."""

    def __init__(self, url: str, user_agent: str) -> None:
        super().__init__()
        self.headers["User-Agent"] = user_agent
        # a proxy that is meant for the internet does not reach this machine's loopback
        self.trust_env = urlsplit(url).hostname not in _LOOPBACK
        self._adapter = _Adapter()
        self.mount("http://", self._adapter)
        self.mount("https://", self._adapter)

    @property
    def original(self) -> bytes | None:
        """See ``SseResponse.original``."""
        return self._adapter.response.original
