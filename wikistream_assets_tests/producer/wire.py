"""Answers of a server byte by byte, where the project's own server is too well-behaved."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from producer.eventstreams.capture import render
from producer.eventstreams.recording import offset_id

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:ok\n\n"


def frame(number: int, data: bytes) -> bytes:
    """A frame with the id of event ``number``."""
    return render(offset_id(number), data)


@contextmanager
def wire(*responses: bytes, seen: list[bytes] | None = None) -> Iterator[str]:
    """A server that answers one request after the other with exactly these bytes, then with status 204; yields its URL.

    ``seen`` receives the requests.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for response in (*responses, b"HTTP/1.1 204 No Content\r\n\r\n"):
                connection, _ = listening.accept()
                with connection:
                    request = b""
                    while not request.endswith(b"\r\n\r\n"):
                        request += connection.recv(65_536)
                    if seen is not None:
                        seen.append(request)
                    connection.sendall(response)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v2/stream/recentchange"
        thread.join(10)
