"""The server is looked at with a plain HTTP client, not with the producer's: the protocol is what is tested here."""

import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from producer.eventstreams import capture, pace
from producer.eventstreams.generator import FIRST_OFFSET, Generator
from producer.eventstreams.recording import Captured, Synthetic
from producer.eventstreams.server import Behaviour, EventStreamsServer
from wikistream_assets.settings import Settings
from wikistream_assets_tests.producer.samples import line

pytestmark = pytest.mark.local

SOURCE = Synthetic(Generator(events=3_000, malformed=0.002, oversized_bytes=10_000))
LINES = [line.data for line in SOURCE.generator.lines()]


class Response:
    """One GET, read until the server ends it or tears it down."""

    def __init__(
        self, server: EventStreamsServer, last: bytes | None = None, query: str = "", path: str | None = None
    ) -> None:
        url = urlsplit(server.url)
        connection = http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=20)
        connection.request("GET", (path or url.path) + query, headers={"Last-Event-ID": last.decode()} if last else {})
        response = connection.getresponse()
        self.status, self.headers = response.status, response.headers
        self.torn = False
        try:
            self.body = response.read()
        except http.client.IncompleteRead as error:
            self.body, self.torn = error.partial, True
        connection.close()
        whole = self.body.split(b"\n\n")[:-1]
        self.frames = [_fields(frame) for frame in whole if frame.startswith(b"event:")]

    @property
    def data(self) -> list[bytes]:
        return [frame[b"data"] for frame in self.frames]

    @property
    def offsets(self) -> list[int]:
        return [json.loads(frame[b"id"])[1]["offset"] - FIRST_OFFSET for frame in self.frames]


def _fields(frame: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b": ", 1) for line in frame.split(b"\n"))  # type: ignore[misc]


@pytest.fixture
def server() -> Iterator[EventStreamsServer]:
    with EventStreamsServer(SOURCE) as running:
        yield running


def misbehaving(server: EventStreamsServer, **fields: object) -> None:
    server.behaviour = replace(server.behaviour, **fields)


def test_whole_stream_as_the_real_service_frames_it(server: EventStreamsServer) -> None:
    response = Response(server)
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.body.startswith(b":ok\n\nevent: message\nid: [{")
    assert response.data == LINES
    assert response.offsets == list(range(3_000))
    first = json.loads(response.frames[0][b"id"])
    assert first == [
        {"topic": "eqiad.mediawiki.recentchange", "partition": 0, "offset": -1},
        {"topic": "codfw.mediawiki.recentchange", "partition": 0, "offset": FIRST_OFFSET},
    ]


@pytest.mark.parametrize("number", [0, 1, 1_023, 1_024, 2_998])
def test_resume_is_exact(server: EventStreamsServer, number: int) -> None:
    last = Response(server).frames[number][b"id"]
    response = Response(server, last)
    assert response.data == LINES[number + 1 :]
    assert response.offsets == list(range(number + 1, 3_000))


def test_who_has_everything_is_told_not_to_come_back(server: EventStreamsServer) -> None:
    last = Response(server).frames[-1][b"id"]
    assert (Response(server, last).status, Response(server, last).body) == (204, b"")


@pytest.mark.parametrize("last", [b"rubbish", b"[1]", b'[{"topic":"someone.elses","partition":0,"offset":1}]'])
def test_a_foreign_position_is_refused(server: EventStreamsServer, last: bytes) -> None:
    assert Response(server, last).status == 400


def test_unknown_stream(server: EventStreamsServer) -> None:
    assert Response(server, path="/v2/stream/nothing").status == 404


def test_since_in_both_notations(server: EventStreamsServer) -> None:
    sent = [line.time_ms for line in SOURCE.generator.lines()]
    limit = sent[2_000]
    readable = [json.loads(line) if line.endswith(b"}") else {} for line in LINES]
    valid = [isinstance(event.get("meta", {}).get("dt"), str) and event["meta"]["dt"][0] == "2" for event in readable]
    first = next(number for number in range(3_000) if valid[number] and sent[number] >= limit)
    assert Response(server, query=f"?since={limit}").data == LINES[first:]
    iso = json.loads(LINES[2_000])["meta"]["dt"]
    assert Response(server, query=f"?since={quote(iso)}").data == LINES[first:]
    assert Response(server, query="?since=yesterday").status == 400
    assert Response(server, query="?since=2026-03-01").data == LINES


def test_a_position_goes_before_since(server: EventStreamsServer) -> None:
    last = Response(server).frames[9][b"id"]
    assert Response(server, last, query="?since=2026-03-03T00:00:00Z").data == LINES[10:]


def test_cut_after_some_events_and_on_from_there(server: EventStreamsServer) -> None:
    misbehaving(server, cut_after=700)
    got: list[bytes] = []
    last = None
    for _ in range(5):
        response = Response(server, last)
        got += response.data
        last = response.frames[-1][b"id"]
    assert got == LINES
    assert Response(server, last).status == 204


def test_cut_inside_a_frame(server: EventStreamsServer) -> None:
    misbehaving(server, cut_after=10, cut_inside="frame")
    response = Response(server)
    assert response.torn
    assert response.data == LINES[:10]
    rest = response.body.split(b"\n\n")[-1]
    assert rest.startswith(b"event: message\nid: ")
    assert b"\ndata: " in rest


def test_cut_inside_a_character(server: EventStreamsServer) -> None:
    number = next(n for n in range(1, 3_000) if any(byte >= 0x80 for byte in LINES[n]))
    misbehaving(server, cut_after=number, cut_inside="character")
    response = Response(server)
    assert not response.torn
    rest = response.body.split(b"\n\n")[-1]
    assert LINES[number].startswith(rest.split(b"\ndata: ")[1])
    with pytest.raises(UnicodeDecodeError):
        rest.decode()


def test_redelivery_on_resume_under_new_offsets(server: EventStreamsServer) -> None:
    misbehaving(server, cut_after=100, redeliver=30)
    first = Response(server)
    second = Response(server, first.frames[-1][b"id"])
    third = Response(server, second.frames[-1][b"id"])
    assert first.data == LINES[:100]
    assert second.data == LINES[70:170]
    assert third.data == LINES[140:240]
    assert first.offsets + second.offsets + third.offsets == list(range(300))


def test_redelivered_events_can_be_resumed_from(server: EventStreamsServer) -> None:
    misbehaving(server, cut_after=100, redeliver=30)
    first = Response(server)
    second = Response(server, first.frames[-1][b"id"])
    again = Response(server, first.frames[-1][b"id"])
    assert (again.data, again.offsets) == (second.data, second.offsets)
    misbehaving(server, redeliver=0)
    assert Response(server, second.frames[9][b"id"]).data == LINES[80:180]


def test_an_old_position_is_clamped_without_a_word(server: EventStreamsServer) -> None:
    early = Response(server).frames[10][b"id"]
    misbehaving(server, retained_from=500)
    response = Response(server, early)
    assert response.status == 200
    assert response.data == LINES[500:]
    assert response.offsets[0] == 500


def test_refusing_for_a_while(server: EventStreamsServer) -> None:
    misbehaving(server, refuse_requests=2, refuse_status=429)
    assert [Response(server).status for _ in range(3)] == [429, 429, 200]


def test_keep_alive_and_cut_by_time() -> None:
    hourly = Synthetic(Generator(events=2, hours=1, malformed=0, canary=0))
    behaviour = Behaviour(speed=1, keep_alive_seconds=0.02, cut_seconds=0.2)
    with EventStreamsServer(hourly, behaviour) as server:
        response = Response(server)
        assert not response.torn
        assert len(response.data) == 1
        assert response.body.count(b": keep-alive\n\n") >= 2


def test_speed_is_a_multiple_of_the_recording() -> None:
    second = Synthetic(Generator(events=20, hours=20 / 3600, malformed=0, canary=0, redelivered=0))
    with EventStreamsServer(second, Behaviour(speed=40)) as server:
        began = time.monotonic()
        data = Response(server).data
        took = time.monotonic() - began
    sent = [rfc["meta"]["dt"] for rfc in map(json.loads, data)]
    assert len(sent) == 20
    assert took >= 15 / 40  # 20 s of events, out of order by up to 5 s, may not be delivered faster than 40 times


def test_stall_keeps_the_connection_and_sends_nothing(server: EventStreamsServer) -> None:
    misbehaving(server, stall_after=5)
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=0.3)
    connection.request("GET", url.path)
    response = connection.getresponse()
    body = b""
    with contextlib.suppress(TimeoutError):
        while chunk := response.read1():
            body += chunk
        pytest.fail("the server ended the response")
    assert body.count(b"event: message") == 5


def test_capture_without_ids_gets_offsets(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(LINES[:50]) + b"\n")
    with EventStreamsServer(Captured(path, capture.inspect(path).sha256)) as server:
        response = Response(server)
        assert response.data == LINES[:50]
        assert response.offsets == list(range(50))
        assert Response(server, response.frames[20][b"id"]).data == LINES[21:50]


@pytest.mark.real_data
def test_the_real_capture_is_served_as_it_was_sent() -> None:
    path = Settings().data / "events" / "recentchange_2021-08-27_1950.sse.gz"
    if not path.exists():
        pytest.skip(f"no {path}: set WIKISTREAM_DATA to the folder of captures")
    recorded = list(capture.read(path))
    with EventStreamsServer(Captured(path, capture.inspect(path).sha256), Behaviour(recorded_ids=True)) as server:
        response = Response(server)
        assert response.data == [frame.data for frame in recorded]
        assert [frame[b"id"] for frame in response.frames] == [frame.event_id for frame in recorded]
        stamp = _stamp(recorded[1_000].event_id)
        again = Response(server, recorded[1_000].event_id)
        expected = list(itertools.dropwhile(lambda frame: _stamp(frame.event_id) < stamp, recorded))
        assert again.data == [frame.data for frame in expected]
        assert len(again.data) >= 950


def _stamp(event_id: bytes | None) -> int:
    return json.loads(event_id or b"")[1]["timestamp"]


def test_a_continuous_source_sends_each_event_at_its_time_and_what_is_overdue_at_once() -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=600)
    source = Synthetic(Generator.lasting(start, 20, seed=5))
    with EventStreamsServer(source, Behaviour(wall_clock=True, cut_seconds=2.0)) as server:
        first = Response(server)
        ended = time.time()
        last = first.frames[-1][b"id"]
        second = Response(server, last=last)
    # a second server, as after a kill: only the position is known
    with EventStreamsServer(source, Behaviour(wall_clock=True, cut_seconds=2.0)) as server:
        third = Response(server, last=second.frames[-1][b"id"])
    due = (ended - start.timestamp()) * 20
    assert 600 * 20 <= len(first.frames) <= due + 1, "ten minutes at once, nothing ahead of its time"
    got = [*first.data, *second.data, *third.data]
    assert got == [line.data for line in itertools.islice(source.generator.lines(), len(got))]
    assert [*first.offsets, *second.offsets, *third.offsets] == list(range(len(got)))
    assert len(second.frames) > 0
    assert len(third.frames) > 0


def test_a_capture_whose_first_event_is_of_2001_is_served_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``make up`` serves it. Before, the eleven of 2026 were due in 25 years."""
    monkeypatch.setattr(pace, "LONGEST_WAIT_SECONDS", 0.5)
    times = ["2001-02-01T00:00:00.500Z", *(f"2026-11-20T10:00:00.{number:02}0Z" for number in range(11))]
    path = tmp_path / "wild.jsonl"
    path.write_text("".join(f"{line(meta_dt=time)}\n" for time in times))
    with EventStreamsServer(Captured(path, "x"), Behaviour(speed=1, cut_seconds=20)) as server:
        data = Response(server).data
    assert [json.loads(text)["meta"]["dt"] for text in data] == times
