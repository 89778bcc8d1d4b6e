"""The project's own EventStreams server: a recording over HTTP/SSE on loopback, with the protocol of the real service.

What it does as Wikimedia's does: ``GET /v2/stream/recentchange``; first the comment ``:ok``; then ``event:``, ``id:``, ``data:``;
``Last-Event-ID`` continues after that event, or, where ids are timestamps (``Behaviour.recorded_ids``), from that moment on,
which delivers some events again; ``?since=`` (ISO 8601 or ms); comments as keep-alive; the connection is cut after a while, 15
minutes by default. Canaries come with the recording: the synthetic one has them.

What it does not do as Wikimedia's: a client without a position starts at the beginning, not at the end, and a client that has
received everything is told so with status 204, which in SSE means: do not come back.

``Behaviour`` makes it misbehave for tests as the real service does at times. Runnable: ``python -m producer.eventstreams``.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from producer import position
from producer.eventstreams import recording as rec
from producer.eventstreams.capture import render
from producer.eventstreams.generator import FIRST_OFFSET, TOPIC
from producer.eventstreams.pace import Pace
from producer.eventstreams.recording import Recording
from producer.times import parse_since_ms, sent_ms

PATHS: Final = ("/v2/stream/recentchange", "/v2/stream/mediawiki.recentchange")

_WRITE_BYTES: Final = 256 * 1024
"""Frames are gathered into writes of this size when the server need not wait for the next one."""


@dataclass(frozen=True)
class Behaviour:
    """How the server behaves; the default is well.

    Attributes:
        speed: 1 as recorded, N times as fast, or None for as fast as the client reads.
        wall_clock: an event is sent at its own time, an overdue one at once, whenever the server or its clients were started;
            in place of ``speed``.
        cut_seconds: a connection is closed after this time.
        keep_alive_seconds: a comment is sent after so long without an event.
        cut_after: a connection is closed after so many events.
        cut_inside: what that cut leaves behind: whole frames, half of the next frame with the connection torn down, or the
            next frame up to the middle of a UTF-8 character with the response ended in good order.
        redeliver: events delivered again, under new offsets, to a client that resumes.
        retained_from: number of the first event the server still has; an older position is moved there without a word.
        refuse_status: status of refused requests.
        refuse_requests: how many requests are refused from the server's start on.
        stall_after: after so many events nothing is sent any more, the connection stays open.
        recorded_ids: send the ids that a ``.sse`` capture recorded. They are timestamps, so who resumes gets a second's events
            again, also after the last one: then the stream has no end. Else every recording has offsets, which are exact.
    """

    speed: float | None = None
    wall_clock: bool = False
    cut_seconds: float = 900.0
    keep_alive_seconds: float = 15.0
    cut_after: int | None = None
    cut_inside: Literal["nothing", "frame", "character"] = "nothing"
    redeliver: int = 0
    retained_from: int = 0
    refuse_status: int = 503
    refuse_requests: int = 0
    stall_after: int | None = None
    recorded_ids: bool = False


@dataclass
class _Log:
    """Which event stands at which offset. As recorded, until redeliveries give events further offsets.

    ``_segments`` holds (offset, number of the event there); each runs on to the next. A client that resumes before a segment
    never saw it: it is forgotten and its offsets are given anew, as nobody else can have them.
    """

    _segments: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def resume(self, offset: int, redeliver: int) -> int:
        """Number of the event to deliver at ``offset``, the first one the client has not seen."""
        with self._lock:
            # a redelivery that begins at this very offset stays: the client only comes back to it
            self._segments = [segment for segment in self._segments if segment[0] <= offset]
            start, number = self._segments[-1]
            number += offset - start
            if redeliver and offset and start != offset:
                number = max(0, number - redeliver)
                self._segments.append((offset, number))
            return number


class EventStreamsServer:
    """Serves one recording on loopback, from the ``with`` statement on.

    Args:
        recording: what to serve.
        behaviour: may be replaced while the server runs; a connection keeps the one it began with.
        port: 0 takes a free one.
    """

    def __init__(self, recording: Recording, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self.recording = recording
        self.behaviour = behaviour or Behaviour()
        self.requests: list[dict[str, str]] = []
        """Headers of every request in order, plus ``path``."""
        self._log = _Log()
        self._stopping = threading.Event()
        self._pace = Pace()
        self._http = _Http(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}{PATHS[0]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _start(self, last_event_id: str | None, since: str | None, behaviour: Behaviour) -> tuple[int, int]:
        """(number, offset) of the first event to deliver.

        Raises:
            ValueError: the position is not of this stream.
        """
        number = offset = 0
        places = position.parse(last_event_id) if last_event_id else {}
        if unknown := {topic for topic, _ in places} - {TOPIC, rec.IDLE_TOPIC}:
            raise ValueError(f"no such topic in this stream: {sorted(unknown)}")
        place = places.get((TOPIC, 0))
        if place is not None and place.timestamp_ms is not None:
            number = offset = rec.number_after_timestamp(self.recording, place.timestamp_ms)
        elif place is not None and place.offset is not None and place.offset >= 0:
            offset = max(0, place.offset - FIRST_OFFSET + 1)
            number = self._log.resume(offset, 0)
            # who has received everything is not sent anything again, else there would be no end
            if behaviour.redeliver and next(self.recording.frames(number), None) is not None:
                number = self._log.resume(offset, behaviour.redeliver)
        elif since:
            number = offset = rec.number_since(self.recording, parse_since_ms(since))
        if number < behaviour.retained_from:
            number = offset = behaviour.retained_from
        return number, offset

    def _delay(self, sent_ms: int, behaviour: Behaviour) -> float:
        """Seconds until an event recorded at ``sent_ms`` is due."""
        if behaviour.wall_clock or behaviour.speed is None:
            return sent_ms / 1000 - time.time()
        return self._pace.wait_seconds(sent_ms, behaviour.speed)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], owner: EventStreamsServer) -> None:
        super().__init__(address, _Handler)
        self.owner = owner


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: object) -> None:  # the name is the base class's
        """Stay silent: what a client does is the client's to log."""

    def do_GET(self) -> None:  # the name is the base class's
        owner = self.server.owner
        behaviour = owner.behaviour
        owner.requests.append({"path": self.path, **self.headers})
        url = urlsplit(self.path)
        if url.path not in PATHS:
            return self._refuse(404, "no such stream")
        if len(owner.requests) <= behaviour.refuse_requests:
            return self._refuse(behaviour.refuse_status, "refused on purpose")
        try:
            since = parse_qs(url.query).get("since", [None])[0]
            number, offset = owner._start(self.headers.get("Last-Event-ID"), since, behaviour)
        except ValueError as error:
            return self._refuse(400, str(error))
        frames = _frames(owner, number, offset, behaviour)
        first = next(frames, None)
        if first is None:
            return self._refuse(204, "")
        with suppress(ConnectionError, TimeoutError):
            self._stream(chain([first], frames), behaviour)
        return None

    def _refuse(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, frames: Iterator[bytes], behaviour: Behaviour) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self._write(b":ok\n\n")
        end = time.monotonic() + behaviour.cut_seconds
        left = behaviour.cut_after if behaviour.stall_after is None else behaviour.stall_after
        pending: list[bytes] = []
        size = 0
        for frame in frames:
            pending.append(frame)
            size += len(frame)
            if not frame or size >= _WRITE_BYTES:  # an empty frame means: nothing further for now
                self._write(b"".join(pending))
                pending, size = [], 0
                if time.monotonic() >= end:
                    break
            if left is not None and frame.startswith(b"event:"):
                left -= 1
                if left == 0:
                    break
        self._write(b"".join(pending))
        if behaviour.stall_after is not None:
            self.server.owner._stopping.wait(max(0.0, end - time.monotonic()))
        elif not self._cut(frames, behaviour):
            self.wfile.write(b"0\r\n\r\n")

    def _cut(self, frames: Iterator[bytes], behaviour: Behaviour) -> bool:
        """Leave a part of the next frame behind; tell whether the connection is to be torn down instead of ended."""
        frame = next(frames, b"") if behaviour.cut_inside != "nothing" else b""
        if behaviour.cut_inside == "frame":
            self._write(frame[: len(frame) // 2])
            return True
        if behaviour.cut_inside == "character":
            self._write(frame[: _inside_character(frame)])
        return False

    def _write(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()


def _inside_character(frame: bytes) -> int:
    """Index right behind the first byte of a multi-byte character in ``data``; the frame's middle if it has none."""
    data = frame.find(b"\ndata:")
    return next((index + 1 for index, byte in enumerate(frame) if index > data and byte >= 0xC0), len(frame) // 2)


def _frames(owner: EventStreamsServer, number: int, offset: int, behaviour: Behaviour) -> Iterator[bytes]:
    """Rendered frames from ``number`` on; before a pause an empty one, in long pauses keep-alive comments."""
    for place, frame in enumerate(owner.recording.frames(number), start=offset):
        if behaviour.speed is not None or behaviour.wall_clock:
            yield from _pause(owner, frame.data, behaviour)
        if owner._stopping.is_set():
            return
        recorded = frame.event_id if behaviour.recorded_ids else None
        yield render(recorded or rec.offset_id(place), frame.data)


def _pause(owner: EventStreamsServer, data: bytes, behaviour: Behaviour) -> Iterator[bytes]:
    sent = sent_ms(data)
    if sent is None:
        return
    delay = owner._delay(sent, behaviour)
    if delay > 0:
        yield b""
    while delay > 0 and not owner._stopping.wait(min(delay, behaviour.keep_alive_seconds)):
        delay = owner._delay(sent, behaviour)
        if delay > 0:
            yield b": keep-alive\n\n"
            yield b""
