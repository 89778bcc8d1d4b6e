"""Reads a stream in a thread of its own: connects, resumes, backs off, notices gaps, and hands over frames in order.

A thread, so that a batch is committed in time while the stream is silent, and reading goes on while a commit waits for Kafka.
One ``requests_sse.EventSource`` opens one connection; ``transport`` reads it. Its own reconnection is not used: it waits before
the first attempt, doubles that wait, and after a cut behind an ``id:`` line it would resume after an event it never handed over.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

import requests
from requests_sse import EventSource, InvalidContentTypeError, InvalidStatusCodeError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    wait_random_exponential,
)

from producer import position, refusals
from producer.exceptions import ProducerError, SourceError
from producer.position import Gap, Place
from producer.refusals import Refusal
from producer.sse import ERROR, MESSAGE, Frame
from producer.times import EARLIEST_EVENT, MAX_AHEAD, sent_ms
from producer.transport import SseSession

_LOGGER = logging.getLogger(__name__)

_RECONNECT_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 1.0
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
_BUFFER_FRAMES: Final = 10_000
_BUFFER_CHARACTERS: Final = 64 * 1024 * 1024
_PAST_UNTIL_EVENTS: Final = 100
_BODY_BYTES: Final = 16 * 1024
_BODY_SECONDS: Final = 5.0


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

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class _EndedError(Exception):
    """The server has nothing more, for ever."""


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
        self._told = ""
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
                f"{self._url} refused {self._policy.attempts} connections in a row ({error}): {error.refusal.remedy}; "
                "nothing is lost while the server keeps its history"
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
        self._told = ""
        with SseSession(self._url, self._user_agent) as session:
            source = self._event_source(session)
            self._open(source, session)
            self.connections += 1
            try:
                self._receive(session)
            except requests.RequestException as error:
                _LOGGER.info("the connection broke (%s)", refusals.from_error(error).reason)
            finally:
                source.close()
        _LOGGER.info("connection closed after %d events", self._received - received)
        if self._received == received and not self._stop.is_set():
            told = f': "{self._told}"' if self._told else ""
            remedy = "check the address (WIKISTREAM_STREAM_URL), then start again"
            raise _RefusedError(Refusal(f"the connection was closed before any event{told}", remedy))

    def _event_source(self, session: SseSession) -> EventSource:
        since = self._policy.since
        url = self._url
        if since is not None and not self._last:
            url += ("&" if "?" in url else "?") + urlencode({"since": since.isoformat()})
        return EventSource(
            url,
            session=session,
            max_connect_retry=0,
            timeout=self._policy.read_timeout_seconds,
            latest_event_id=position.resume_id(self._last) if self._last else None,
        )

    def _open(self, source: EventSource, session: SseSession) -> None:
        try:
            source.connect()
        except InvalidStatusCodeError as error:
            if error.status_code == 204 and self._policy.until_end:
                raise _EndedError from None
            refusal = refusals.from_status(session.response, _beginning(session), resumed=self._last is not None)
        except InvalidContentTypeError:
            refusal = refusals.from_content(session.response, _beginning(session))
        except requests.RequestException as error:
            refusal = refusals.from_error(error)
        else:
            return
        if refusal.lasting:
            raise SourceError(f"{self._url} refuses ({refusal.reason}): {refusal.remedy}")
        raise _RefusedError(refusal)

    def _receive(self, session: SseSession) -> None:
        resumed_after = self._last
        first = True
        unplaced = 0
        for frame in session.frames():
            if frame.kind != MESSAGE:
                self._tell(frame)
                continue
            named = (frame.event_id or b"").decode(errors="replace")
            event_id = self._position(named, warn=unplaced == 0)
            received = _received(frame, event_id)
            if self._is_past_until(frame.data):
                raise _EndedError
            gap = None
            if event_id != named:
                unplaced += 1
            elif first:
                gap = self._gap(resumed_after, event_id, unplaced) or self._gap_after_since(received)
                first = False
            self._put(replace(received, gap=gap) if gap else received)
            self._last = event_id
            self._received += 1
            if self._stop.is_set():
                return

    def _tell(self, frame: Frame) -> None:
        """A frame that is no event: EventStreams says in one why it is about to close the connection."""
        if self._told:
            return  # the first one tells why, and a hostile server sends many
        if frame.kind == ERROR:
            self._told = refusals.from_frame(frame.data)
            _LOGGER.warning('the server reports an error: "%s"', self._told)
        else:
            self._told = f"frames of the kind {refusals.one_line(frame.kind)!r}"

    def _position(self, event_id: str, *, warn: bool) -> str:
        """The id, or the last good one if a server could not go on from it: events come twice then, which ``meta.id`` tells.

        Raises:
            SourceError: it is none, and none came before.
        """
        try:
            _check_times(position.parse(event_id))
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

    def _gap_after_since(self, first: Received) -> Gap | None:
        """What is missing between the asked beginning and the first event: a server gives what it has, without a word."""
        since = self._policy.since
        if self._received or self._last or since is None:
            return None
        sent = sent_ms(first.data.encode())
        if sent is None or sent / 1000 - since.timestamp() <= self._policy.gap_tolerance_seconds:
            return None
        _LOGGER.warning("gap: asked for events since %s, the server begins with %s", since, first.event_id)
        return Gap(after=since.isoformat(), before=first.event_id)

    def _is_past_until(self, data: bytes) -> bool:
        until = self._policy.until
        if until is None:
            return False
        sent = sent_ms(data)
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
        asked = error.refusal.retry_after if isinstance(error, _RefusedError) else 0.0
        return max(wait, min(asked, _MAX_RETRY_AFTER_SECONDS))

    def _log_refusal(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        _LOGGER.warning("refused (%s), attempt %d, next in %.1f s", error, state.attempt_number, wait)


def _received(frame: Frame, event_id: str) -> Received:
    try:
        return Received(event_id, frame.data.decode())
    except UnicodeDecodeError:
        return Received(event_id, frame.data.decode(errors="replace"), frame.data)


def _check_times(places: Mapping[tuple[str, int], Place]) -> None:
    """Refuse a position that no event can have: resumed from a time to come, the stream would leave out all until then.

    Raises:
        ValueError: it lies before Wikipedia or ahead of the clock.
    """
    latest_ms = (time.time() + MAX_AHEAD.total_seconds()) * 1000
    for place in places.values():
        stamp = place.timestamp_ms
        if stamp is not None and not EARLIEST_EVENT.timestamp() * 1000 <= stamp <= latest_ms:
            raise ValueError(f"an EventStreams id of a time that cannot be: {stamp} ms")


def _beginning(session: SseSession) -> bytes:
    """The first bytes of an answer's body, as far as they come soon; what a broken one still says."""
    body = b""
    deadline = time.monotonic() + _BODY_SECONDS
    with suppress(requests.RequestException, OSError):
        for piece in session.pieces():
            body += piece
            if len(body) >= _BODY_BYTES or time.monotonic() > deadline:
                break
    return body[:_BODY_BYTES]
