"""Reads a stream in a thread of its own: connects, resumes, backs off, notices gaps, and hands over frames in order.

A thread, so that a batch is committed in time while the stream is silent, and reading goes on while a commit waits for Kafka.
One ``requests_sse.EventSource`` serves one connection. Its own reconnection is not used: it waits before the first attempt,
doubles that wait, and after a cut behind an ``id:`` line it would resume after an event it never handed over.
"""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

import requests
from requests_sse import EventSource, InvalidContentTypeError, InvalidStatusCodeError, MessageEvent, ReadyState
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    wait_random_exponential,
)

from producer import position
from producer.exceptions import ProducerError, SourceError
from producer.position import Gap
from producer.sent import sent_ms
from producer.transport import SseSession

_LOGGER = logging.getLogger(__name__)

_RECONNECT_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 1.0
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
_BUFFER_FRAMES: Final = 10_000
_BUFFER_CHARACTERS: Final = 64 * 1024 * 1024
_PAST_UNTIL_EVENTS: Final = 100
_TEMPORARY: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Received:
    """One event of the stream.

    Attributes:
        event_id: the frame's ``id:``; if that is no position, the last one that was.
        data: its data as text.
        original: its bytes, if they are not UTF-8; then ``data`` is not exact.
        gap: set on the first event after a resume that left events out.
    """

    event_id: str
    data: str
    original: bytes | None = None
    gap: Gap | None = None


@dataclass(frozen=True)
class Policy:
    """How a reader connects.

    Attributes:
        attempts: refusals in a row before it gives up.
        backoff_seconds / backoff_max_seconds: bounds of the random wait after a refusal.
        read_timeout_seconds: a silent connection is given up after this time.
        gap_tolerance_seconds: see ``position.gap_between``.
        until_end: status 204 ends the reading; else it counts as a refusal, because a live stream has no end.
        since: without a position, begin at this time instead of now; what the server no longer has is reported as a gap.
        until: enough events in a row of this time or later end the reading (a stream is not quite in order of time).
    """

    attempts: int = 10
    backoff_seconds: float = 5.0
    backoff_max_seconds: float = 60.0
    read_timeout_seconds: float = 60.0
    gap_tolerance_seconds: float = 60.0
    until_end: bool = False
    since: datetime | None = None
    until: datetime | None = None


class _RefusedError(Exception):
    """The server does not serve us now; try again later."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class _EndedError(Exception):
    """The server has nothing more, for ever."""


class _ClosedError(Exception):
    """The connection is over."""


class Reader:
    """Reads one stream from a position on.

    Args:
        url: the EventStreams endpoint.
        user_agent: as Wikimedia's policy wants it.
        last: ``id:`` of the last event that is safe; None starts where the server starts.
        policy: how to connect.
    """

    def __init__(self, url: str, user_agent: str, last: str | None, policy: Policy) -> None:
        self._url = url
        self._user_agent = user_agent
        self._last = last
        self._policy = policy
        self._buffer: deque[Received] = deque()
        self._taken_characters = 0
        self._put_characters = 0
        self._filled = threading.Event()
        self._emptied = threading.Event()
        self._stop = threading.Event()
        self._finished = False
        self.failure: ProducerError | None = None
        """Why reading ended, if it was not the stream's end. Known once ``ended`` is true."""
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._received = 0
        self._past_until = 0
        self.connections = 0

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read nothing further. A thread that sits in a read of a silent stream is left behind: it holds nothing that matters."""
        self._stop.set()
        self._emptied.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    @property
    def ended(self) -> bool:
        """Nothing is left and nothing will come: the stream ended, or reading failed."""
        return self._finished and not self._buffer

    def take(self, most: int, timeout: float) -> Sequence[Received]:
        """The next events, at most ``most``; empty if none came within ``timeout`` seconds or reading has ended."""
        self._filled.clear()
        if not self._buffer and not self._finished:
            self._filled.wait(timeout)
        taken = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        self._taken_characters += sum(len(received.data) for received in taken)
        self._emptied.set()
        return taken

    def _run(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type(_RefusedError),
            stop=stop_after_attempt(self._policy.attempts),
            wait=self._wait_seconds,
            sleep=sleep_using_event(self._stop),
            before_sleep=self._log_refusal,
            reraise=True,
        )
        try:
            while not self._stop.is_set():
                retrying(self._connection)
                self._stop.wait(_RECONNECT_SECONDS)
        except _EndedError:
            _LOGGER.info("the server has nothing more to send")
        except _RefusedError as error:
            self.failure = SourceError(
                f"{self._url} refused {self._policy.attempts} connections in a row ({error}): check the address and the network, "
                "then start again; nothing is lost while the server keeps its history"
            )
        except ProducerError as error:
            self.failure = error
        except Exception as error:  # the main thread must hear of a defect, whatever it is
            _LOGGER.exception("reading failed")
            self.failure = SourceError(
                f"{self._url} cannot be read ({type(error).__name__}: {error}): please report this"
            )
        finally:
            self._finished = True
            self._filled.set()

    def _connection(self) -> None:
        """Read one connection to its end.

        Raises:
            _RefusedError: it could not be opened, or it ended without having brought anything.
            _EndedError: the stream has ended.
            SourceError: the server will never serve this.
        """
        if self._stop.is_set():
            return
        received = self._received
        with SseSession(self._url, self._user_agent) as session:
            source = self._event_source(session)
            self._open(source)
            self.connections += 1
            try:
                self._receive(source, session)
            except _ClosedError:
                _LOGGER.info("connection closed after %d events", self._received - received)
            finally:
                source.close()
        if self._received == received and not self._stop.is_set():
            raise _RefusedError("the connection was closed before any event")

    def _event_source(self, session: SseSession) -> EventSource:
        def on_error() -> None:
            if source.ready_state == ReadyState.CONNECTING:  # the connection broke: do not let it reconnect by itself
                raise _ClosedError

        since = self._policy.since
        source = EventSource(
            self._url if self._last or since is None else f"{self._url}?{urlencode({'since': since.isoformat()})}",
            session=session,
            max_connect_retry=0,
            reconnection_time=timedelta(0),
            timeout=self._policy.read_timeout_seconds,
            latest_event_id=position.resume_id(self._last) if self._last else None,
            on_error=on_error,
        )
        return source

    def _open(self, source: EventSource) -> None:
        try:
            source.connect()
        except InvalidStatusCodeError as error:
            if error.status_code == 204:
                raise (
                    _EndedError if self._policy.until_end else _RefusedError("HTTP 204: nothing more to send")
                ) from None
            if 400 <= error.status_code < 500 and error.status_code not in _TEMPORARY:
                raise SourceError(
                    f"{self._url} answers HTTP {error.status_code}: check the address (WIKISTREAM_STREAM_URL)"
                ) from None
            raise _RefusedError(f"HTTP {error.status_code}", _retry_after(error)) from None
        except InvalidContentTypeError as error:
            raise SourceError(
                f"{self._url} sends {error.content_type}, not an event stream: check the address (WIKISTREAM_STREAM_URL)"
            ) from None
        except requests.RequestException as error:
            raise _RefusedError(type(error).__name__) from error

    def _receive(self, source: EventSource, session: SseSession) -> None:
        resumed_after = self._last
        first = True
        unplaced = 0
        for message in source:
            if message.type != "message" or message.data is None:
                continue
            event_id = self._position(message.last_event_id, warn=unplaced == 0)
            if self._is_past_until(message.data):
                raise _EndedError
            gap = None
            if event_id != message.last_event_id:
                unplaced += 1
            elif first:
                gap = self._gap(resumed_after, event_id, unplaced) or self._gap_after_since(message)
                first = False
            self._put(Received(event_id, message.data, session.original, gap))
            self._last = event_id
            self._received += 1
            if self._stop.is_set():
                return

    def _position(self, event_id: str, *, warn: bool) -> str:
        """The id, or the last good one if a server could not go on from it: events come twice then, which ``meta.id`` tells.

        Raises:
            SourceError: it is none, and none came before.
        """
        try:
            position.parse(event_id)
        except ValueError as error:
            reason = str(error) if event_id else "it sends events without id"
            if not self._last:
                raise SourceError(f"{self._url} is no EventStreams endpoint: {reason}") from None
            if warn:
                _LOGGER.warning("events are kept, but the position stays where it was: %s", reason)
            return self._last
        return event_id

    def _gap(self, last: str | None, first: str, unplaced: int) -> Gap | None:
        tolerance_ms = round(self._policy.gap_tolerance_seconds * 1000)
        gap = position.gap_between(last, first, tolerance_ms, unplaced) if last else None
        if gap:
            _LOGGER.warning(
                "gap: the server no longer had what came after %s, it went on with %s", gap.after, gap.before
            )
        return gap

    def _gap_after_since(self, first: MessageEvent) -> Gap | None:
        """What is missing between the asked beginning and the first event: a server gives what it has, without a word."""
        since = self._policy.since
        if self._received or self._last or since is None or first.data is None or first.last_event_id is None:
            return None
        sent = sent_ms(first.data.encode())
        if sent is None or sent / 1000 - since.timestamp() <= self._policy.gap_tolerance_seconds:
            return None
        _LOGGER.warning("gap: asked for events since %s, the server begins with %s", since, first.last_event_id)
        return Gap(after=since.isoformat(), before=first.last_event_id)

    def _is_past_until(self, data: str) -> bool:
        until = self._policy.until
        if until is None:
            return False
        sent = sent_ms(data.encode())
        if sent is not None:
            self._past_until = self._past_until + 1 if sent >= until.timestamp() * 1000 else 0
        return self._past_until >= _PAST_UNTIL_EVENTS

    def _put(self, received: Received) -> None:
        while (
            len(self._buffer) >= _BUFFER_FRAMES or self._put_characters - self._taken_characters > _BUFFER_CHARACTERS
        ) and not self._stop.is_set():
            self._emptied.clear()
            self._filled.set()
            self._emptied.wait(1.0)
        self._put_characters += len(received.data)
        self._buffer.append(received)
        if not self._filled.is_set():
            self._filled.set()

    def _wait_seconds(self, state: RetryCallState) -> float:
        policy = self._policy
        wait = wait_random_exponential(
            multiplier=policy.backoff_seconds, max=policy.backoff_max_seconds, min=policy.backoff_seconds
        )(state)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, _RefusedError) else 0.0
        return max(wait, min(asked, _MAX_RETRY_AFTER_SECONDS))

    def _log_refusal(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        _LOGGER.warning("refused (%s), attempt %d, next in %.1f s", error, state.attempt_number, wait)


def _retry_after(error: InvalidStatusCodeError) -> float:
    """The server's ``Retry-After`` in seconds; 0 if it gives none (the form with a date is not used by EventStreams)."""
    with contextlib.suppress(ValueError):
        return float(error.response.headers.get("Retry-After", "")) if error.response is not None else 0.0
    return 0.0
