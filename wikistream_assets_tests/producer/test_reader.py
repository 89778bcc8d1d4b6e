"""The reader against the project's own server, and against a raw socket where the server is too well-behaved."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from producer.eventstreams.capture import render
from producer.eventstreams.generator import Generator
from producer.eventstreams.recording import Synthetic, offset_id
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.exceptions import SourceError
from producer.position import Gap
from producer.reader import Policy, Reader, Received
from producer.service import user_agent
from producer.settings import ProducerSettings
from producer.times import sent_ms
from wikistream_assets_tests.conftest import free_port
from wikistream_assets_tests.producer.wire import HEAD, frame, wire

pytestmark = pytest.mark.unit

SOURCE = Synthetic(Generator(events=2_000, malformed=0.002, oversized_bytes=400_000))
LINES = [line.data for line in SOURCE.generator.lines()]
QUICK = Policy(attempts=5, backoff_seconds=0.01, backoff_max_seconds=0.05, read_timeout_seconds=5, until_end=True)


def raw(got: list[Received]) -> list[bytes]:
    """What was received, as bytes."""
    return [received.data.encode() if received.original is None else received.original for received in got]


def read_all(
    url: str, policy: Policy = QUICK, last: str | None = None, limit: float = 60
) -> tuple[list[Received], Reader]:
    """Everything until the reader ends."""
    reader = Reader(url, "test", last, policy)
    reader.start()
    got: list[Received] = []
    deadline = time.monotonic() + limit
    while not reader.ended:
        got += reader.take(300, 0.2)
        assert time.monotonic() < deadline, "the reader did not end"
    return got, reader


@pytest.fixture
def server() -> Iterator[EventStreamsServer]:
    with EventStreamsServer(SOURCE) as running:
        yield running


def test_reads_to_the_end_and_stops(server: EventStreamsServer) -> None:
    got, reader = read_all(server.url)
    assert raw(got) == LINES
    assert [received.event_id for received in got] == [offset_id(number).decode() for number in range(2_000)]
    assert reader.failure is None
    assert not any(received.gap for received in got)


def test_introduces_itself_as_the_policy_asks(server: EventStreamsServer) -> None:
    reader = Reader(server.url, user_agent(ProducerSettings(contact="https://example.org/us"), server.url), None, QUICK)
    reader.start()
    while not reader.ended:
        reader.take(500, 0.2)
    sent = server.requests[0]
    assert sent["User-Agent"].startswith("WikiStream/0.2.0 (https://example.org/us) requests-sse/0.")
    assert sent["Accept"] == "text/event-stream"


@pytest.mark.parametrize("inside", ["nothing", "frame", "character"])
def test_every_cut_is_survived_without_loss_or_repetition(server: EventStreamsServer, inside: str) -> None:
    server.behaviour = replace(server.behaviour, cut_after=300, cut_inside=inside)
    got, reader = read_all(server.url)
    assert raw(got) == LINES
    assert reader.connections == 7
    assert reader.failure is None


def test_cut_by_time(server: EventStreamsServer) -> None:
    server.behaviour = Behaviour(speed=1_000_000, cut_seconds=0.02)
    got, _ = read_all(server.url)
    assert raw(got) == LINES


def test_redelivered_events_are_handed_on(server: EventStreamsServer) -> None:
    server.behaviour = replace(server.behaviour, cut_after=1_500, redeliver=500)
    got, _ = read_all(server.url)
    assert raw(got) == LINES[:1_500] + LINES[1_000:2_000]
    assert not any(received.gap for received in got)


def test_a_clamped_position_is_a_gap(server: EventStreamsServer, caplog: pytest.LogCaptureFixture) -> None:
    server.behaviour = replace(server.behaviour, retained_from=900)
    last = offset_id(99).decode()
    with caplog.at_level(logging.WARNING):
        got, _ = read_all(server.url, last=last)
    assert raw(got) == LINES[900:]
    assert got[0].gap == Gap(after=last, before=offset_id(900).decode())
    assert not any(received.gap for received in got[1:])
    assert "gap" in caplog.text


def test_refusals_are_waited_out(server: EventStreamsServer) -> None:
    server.behaviour = replace(server.behaviour, refuse_requests=4, refuse_status=429)
    got, reader = read_all(server.url)
    assert len(got) == 2_000
    assert reader.failure is None


def test_too_many_refusals_end_the_reading(server: EventStreamsServer) -> None:
    server.behaviour = replace(server.behaviour, refuse_requests=5, refuse_status=500)
    got, reader = read_all(server.url)
    assert got == []
    assert isinstance(reader.failure, SourceError)
    assert 'refused 5 connections in a row (HTTP 500: "refused on purpose")' in str(reader.failure)
    assert len(server.requests) == 5


def test_nobody_listens() -> None:
    _, reader = read_all(f"http://127.0.0.1:{free_port()}/v2/stream/recentchange")
    assert isinstance(reader.failure, SourceError)


def test_a_wrong_address_is_not_tried_again(server: EventStreamsServer) -> None:
    _, reader = read_all(server.url.replace("recentchange", "nothing"))
    assert isinstance(reader.failure, SourceError)
    assert "HTTP 404" in str(reader.failure)
    assert len(server.requests) == 1


def test_without_until_end_a_stream_has_no_end(server: EventStreamsServer) -> None:
    got, reader = read_all(server.url, replace(QUICK, until_end=False))
    assert len(got) == 2_000
    assert "HTTP 204" in str(reader.failure)


def test_a_silent_connection_is_given_up(server: EventStreamsServer) -> None:
    server.behaviour = replace(server.behaviour, stall_after=700)
    got, reader = read_all(server.url, replace(QUICK, read_timeout_seconds=0.3))
    assert raw(got) == LINES
    assert reader.connections == 3


def test_waits_grow_from_five_to_sixty_seconds_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def skip(self: threading.Event, timeout: float | None = None) -> bool:
        waits.append(timeout or 0.0)
        return False

    reader = Reader(f"http://127.0.0.1:{free_port()}/v2/stream/recentchange", "test", None, Policy())
    monkeypatch.setattr(reader._stop, "wait", skip.__get__(reader._stop))
    reader._run()
    assert isinstance(reader.failure, SourceError)
    assert len(waits) == 9
    assert waits[0] == 5
    bounds = [min(60, 5 * 2**attempt) for attempt in range(9)]
    assert all(5 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert len(set(waits)) > 2


def test_stopping_ends_a_wait(server: EventStreamsServer) -> None:
    server.behaviour = replace(server.behaviour, refuse_requests=100)
    reader = Reader(server.url, "test", None, replace(QUICK, backoff_seconds=600, backoff_max_seconds=600))
    reader.start()
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        reader.take(1, 0.05)
    reader.stop()
    while not reader.ended and time.monotonic() < deadline:
        reader.take(1, 0.05)
    assert reader.ended
    assert len(server.requests) == 1


def test_bytes_that_are_no_utf8_are_kept(server: EventStreamsServer) -> None:
    bad = b'{"title":"\xff\xfe\xc3("}'
    with wire(HEAD + frame(0, b'{"a":1}') + frame(1, bad) + frame(2, "é".encode())) as url:
        got, _ = read_all(url)
    assert [received.original for received in got] == [None, bad, None]
    assert got[0].data == '{"a":1}'
    assert got[2].data == "é"


def test_an_id_seen_before_a_cut_is_no_position() -> None:
    """requests-sse would take the id of a frame whose data never came for the last one, and skip that frame."""
    whole = frame(0, b"0")
    cut = HEAD + whole + frame(1, b"1").split(b"data")[0]
    with wire(cut, HEAD, HEAD + frame(1, b"1")) as url:
        got, _ = read_all(url)
    assert [received.data for received in got] == ["0", "1"]
    assert not any(received.gap for received in got)


def test_comments_other_events_and_line_ends_are_the_standards() -> None:
    body = b": hello\n\nretry: 1\n\nevent: error\ndata: {}\n\n" + frame(5, b"x").replace(b"\n", b"\r\n") + b"id: 7\n\n"
    with wire(HEAD + body) as url:
        got, _ = read_all(url)
    assert [(received.data, received.event_id) for received in got] == [("x", offset_id(5).decode())]


@pytest.mark.parametrize("chunked", [False, True], ids=["until closed", "one slow chunk"])
def test_what_has_arrived_is_handed_on_while_the_connection_stays(chunked: bool) -> None:
    """A proxy of HTTP/1.0 sends no chunks, another may make one of megabytes: neither may hold events back."""
    body = frame(0, b"0")
    head = HEAD.removesuffix(b"\r\n:ok\n\n")
    head += b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n" if chunked else b"Connection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reader = Reader(f"http://127.0.0.1:{listening.getsockname()[1]}/v2/stream/recentchange", "test", None, QUICK)
        reader.start()
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall((head if chunked else head.replace(b"HTTP/1.1", b"HTTP/1.0")) + body)
            first = reader.take(1, 3.0)
            connection.sendall(frame(1, b"1"))
            second = reader.take(1, 3.0)
            reader.stop()
    assert [received.data for received in (*first, *second)] == ["0", "1"]


def test_fields_of_the_wire_do_not_steer_the_reader() -> None:
    """A wait that no clock can hold, an id of a time to come, blanks in front of the data."""
    wild = b'[{"topic":"codfw.x","partition":0,"timestamp":%d}]'
    body = b"retry: 9999999999999999999\n\n" + frame(0, b"0") + render(wild % 4_070_908_800_000, b"1")
    body += render(wild % 5_000, b"2") + b"event:\ndata:   3\n\n"
    seen: list[bytes] = []
    with wire(HEAD + body, seen=seen) as url:
        got, reader = read_all(url)
    assert reader.failure is None
    assert [(received.data, received.event_id) for received in got] == [
        *((text, offset_id(0).decode()) for text in ("0", "1", "2", "  3")),
    ]
    assert [_last_event_id(request) for request in seen] == [None, offset_id(0).decode()]


def test_an_error_frame_is_told(caplog: pytest.LogCaptureFixture) -> None:
    body = frame(0, b"0") + b'event: error\ndata: {"message":"broker down\\u001b"}\n\n'
    with caplog.at_level(logging.WARNING), wire(HEAD + body) as url:
        got, _ = read_all(url)
    assert [received.data for received in got] == ["0"]
    assert 'the server reports an error: "broker down"' in caplog.text


def test_an_endless_line_is_cut_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.sse.MAX_FRAME_BYTES", 1_000)
    with wire(HEAD + frame(0, b"x" * 1_000_000) + frame(1, b"1")) as url:
        got, _ = read_all(url)
    assert [len(received.data) for received in got] == [1_000 - len("data: "), 1]


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "not an event stream"),
        (HEAD + b"data: {}\n\n", "without id"),
    ],
)
def test_what_is_no_event_stream_is_refused_at_once(response: bytes, text: str) -> None:
    _, reader = _read_answer(response)
    assert isinstance(reader.failure, SourceError)
    assert text in str(reader.failure)


def _read_answer(response: bytes) -> tuple[list[Received], Reader]:
    """Everything from a server that answers one request and no other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answer = threading.Thread(target=lambda: _answer_once(listening, response), daemon=True)
        answer.start()
        return read_all(f"http://127.0.0.1:{listening.getsockname()[1]}/v2/stream/recentchange")


def _answer_once(listening: socket.socket, response: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(response)


NO_IDS = [
    *("", "x", "5", "null", "[]", "{}", "[{}]"),
    '[{"topic":"a","partition":0,"timestamp":true}]',
    '[{"topic":"a","partition":0,"timestamp":-9e99}]',
    '[{"topic":"a","partition":true,"offset":1}]',
    "\u202e\x1b[2J" * 1_000,
]


@pytest.mark.parametrize("no_id", NO_IDS, ids=lambda text: text[:50] or "empty")
def test_an_id_that_is_none_moves_no_position(no_id: str, caplog: pytest.LogCaptureFixture) -> None:
    """The events are kept; what follows the last good id comes again after a cut, and is no gap."""
    seen: list[bytes] = []
    first, third = offset_id(0).decode(), offset_id(3).decode()
    lost = render(no_id.encode(), b"1") + render(no_id.encode(), b"2")
    with (
        caplog.at_level(logging.WARNING),
        wire(HEAD + frame(0, b"0") + lost, HEAD + lost + frame(3, b"3"), seen=seen) as url,
    ):
        got, reader = read_all(url)
    assert reader.failure is None
    assert [(received.data, received.event_id) for received in got] == [
        *[("0", first), ("1", first), ("2", first)],
        *[("1", first), ("2", first), ("3", third)],
    ]
    assert not any(received.gap for received in got)
    assert [_last_event_id(request) for request in seen] == [None, first, third]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, "one line for each connection"
    assert all(line.isprintable() and len(line) < 3_000 for line in told)


def test_a_gap_behind_an_id_that_is_none_is_told() -> None:
    last, before = offset_id(0).decode(), offset_id(5).decode()
    with wire(HEAD + render(b"x", b"1") + frame(5, b"5")) as url:
        got, _ = read_all(url, last=last)
    assert [(received.data, received.gap) for received in got] == [("1", None), ("5", Gap(last, before))]


@pytest.mark.parametrize("no_id", NO_IDS, ids=lambda text: text[:50] or "empty")
def test_without_any_good_id_there_is_nothing_to_go_on_from(no_id: str) -> None:
    got, reader = _read_answer(HEAD + render(no_id.encode(), b"1") + frame(2, b"2"))
    assert got == []
    assert isinstance(reader.failure, SourceError)
    assert "is no EventStreams endpoint" in str(reader.failure)


def _last_event_id(request: bytes) -> str | None:
    headers = dict(line.split(": ", 1) for line in request.decode().splitlines()[1:] if line)
    return headers.get("Last-Event-Id")


def test_loopback_needs_no_proxy(server: EventStreamsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    got, _ = read_all(server.url)
    assert len(got) == 2_000


def test_a_piece_of_the_history(server: EventStreamsServer) -> None:
    """From the first event of a time until a hundred events in a row are past another."""
    generator = SOURCE.generator
    since, until = (generator.start + timedelta(hours=generator.hours * share) for share in (0.25, 0.75))
    got, reader = read_all(server.url, replace(QUICK, since=since, until=until))
    assert reader.failure is None
    assert not any(received.gap for received in got)
    times = [sent_ms(data) for data in raw(got)]
    first = next(number for number, data in enumerate(LINES) if (sent_ms(data) or 0) >= since.timestamp() * 1000)
    assert raw(got) == LINES[first : first + len(got)]
    beyond = [sent for sent in times if sent is not None and sent >= until.timestamp() * 1000]
    assert len(LINES) * 0.4 < len(got) < len(LINES) * 0.6
    assert 99 <= len(beyond) < 200


def test_a_history_that_begins_later_than_asked_is_a_gap(server: EventStreamsServer) -> None:
    server.behaviour = Behaviour(retained_from=500)
    got, _ = read_all(server.url, replace(QUICK, since=SOURCE.generator.start, gap_tolerance_seconds=1))
    assert [received.gap for received in got if received.gap] == [
        Gap(SOURCE.generator.start.isoformat(), offset_id(500).decode())
    ]
