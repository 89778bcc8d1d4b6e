"""How the frames of a stream arrive: read as soon as they are there, however the server cuts its answer into pieces.

requests-sse opens the connection and checks what answers. It does not read it: it decodes each line strictly, so that a
connection cut inside a character, or one event that is not UTF-8, ends it (the latter again after each resume), and it waits for
a whole buffer when the answer is not sent in chunks.
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from producer.sse import Frame, FrameReader

_PIECE_BYTES: Final = 256 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def is_loopback(url: str) -> bool:
    """Whether an address names this machine; a text that is no address does not."""
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False


class _Adapter(HTTPAdapter):
    def __init__(self) -> None:
        super().__init__()
        self.response: requests.Response | None = None

    def build_response(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().build_response(*args, **kwargs)
        self.response = response
        return response


class SseSession(requests.Session):
    """One connection's session: sends the policy's User-Agent and reads the frames of the answer."""

    def __init__(self, url: str, user_agent: str) -> None:
        super().__init__()
        self.headers["User-Agent"] = user_agent
        # a proxy that is meant for the internet does not reach this machine's loopback
        self.trust_env = not is_loopback(url)
        self._adapter = _Adapter()
        self.mount("http://", self._adapter)
        self.mount("https://", self._adapter)

    @property
    def response(self) -> requests.Response:
        """The newest answer; only for who got one."""
        assert self._adapter.response is not None  # noqa: S101  # for the type checker
        return self._adapter.response

    def close(self) -> None:
        """Let go of the connection, also of one whose answer was not read to its end."""
        if self._adapter.response is not None:
            self._adapter.response.raw.close()
        super().close()

    def frames(self) -> Iterator[Frame]:
        """The frames of the answer until its end. What a cut left unfinished is dropped, as the standard says.

        Raises:
            requests.RequestException: the connection broke.
        """
        reader = FrameReader()
        for piece in self.pieces():
            yield from reader.feed(piece)

    def pieces(self) -> Iterator[bytes]:
        """The body of the answer, each piece as soon as it has arrived; ``iter_content`` waits until a whole buffer is full.

        Raises:
            requests.RequestException: the connection broke.
        """
        raw = self.response.raw
        try:
            while piece := raw.read1(_PIECE_BYTES, decode_content=True):
                yield piece
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error) from error
