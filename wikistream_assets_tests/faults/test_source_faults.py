"""The source under fire: connections cut, events delivered again or kept no longer, refusals and silence.

The oracle is what the server sent, and the tables that an undisturbed producer ends with. The control is the well-known client
by itself.
"""

import json
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest
from requests.exceptions import RequestException
from requests_sse import EventSource, InvalidStatusCodeError

from producer.contract import Reason
from producer.eventstreams.generator import Generator, Line
from producer.eventstreams.recording import Synthetic, offset_id
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.failpoints import AFTER_COMMIT
from producer.launch import Source
from producer.settings import ProducerSettings
from producer.sink import read_cursor
from producer.topics import RAW_EVENTS
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.kafka.broker import Broker
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.faults.conftest import Account, ExactlyOnce, HashesOf, drained_hashes
from wikistream_assets_tests.faults.producing import (
    GENERATOR,
    PROCESS_SECONDS,
    accepted_ids,
    finish,
    producer_settings,
    start,
)
from wikistream_assets_tests.producer.kafka_reader import committed, landed
from wikistream_assets_tests.producer.samples import ID, line
from wikistream_assets_tests.producer.test_bombs import BOMB_BYTES, LIMIT_BYTES, compressed
from wikistream_assets_tests.producer.wire import HEAD, frame, wire

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.spark]

BRONZE = "bronze.raw_events"


@pytest.fixture
def settings(fresh_topics: Broker) -> ProducerSettings:
    return producer_settings(fresh_topics)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(cut_after=700, cut_inside="frame"),
        Behaviour(cut_after=700, cut_inside="character"),
        Behaviour(speed=50_000, cut_seconds=0.2),
    ],
    ids=["inside_a_frame", "inside_a_character", "by_time"],
)
def test_5_the_server_cuts_the_connection(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    assert_exactly_once: ExactlyOnce,
    behaviour: Behaviour,
) -> None:
    server.behaviour = behaviour
    assert finish(start(source, server.url, settings)) == 0
    cuts = len(server.requests) - 1
    assert cuts > 2
    where = f"inside a {behaviour.cut_inside}" if behaviour.cut_after else "by time"
    assert_exactly_once(settings, source, "5", f"the server cuts the connection {where}", cuts)


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (Behaviour(cut_after=2_000, refuse_requests=6, refuse_status=429), "the server answers 429 six times"),
        (Behaviour(cut_after=2_000, refuse_requests=6, refuse_status=500), "the server answers 500 six times"),
        (Behaviour(stall_after=1_500), "the server stalls after each 1,500 events"),
    ],
    ids=["429", "500", "stalls"],
)
def test_the_server_refuses_or_stalls(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    assert_exactly_once: ExactlyOnce,
    behaviour: Behaviour,
    fault: str,
) -> None:
    server.behaviour = behaviour
    assert finish(start(source, server.url, settings, producer_read_timeout_seconds=1.0)) == 0
    tries = len(server.requests) - 1
    assert tries > 4
    assert_exactly_once(settings, source, "more", fault, tries)


CLEAN = Generator(events=8_000, malformed=0)
"""For the plain client, which dies of what is no UTF-8."""


@pytest.fixture
def clean_server() -> Iterator[EventStreamsServer]:
    with EventStreamsServer(Synthetic(CLEAN)) as running:
        yield running


def plain_client(url: str, last: str | None = None) -> Iterator[str]:
    """requests-sse as it is by itself."""
    with EventSource(url, reconnection_time=timedelta(milliseconds=10), latest_event_id=last) as events:
        for event in events:
            yield event.data


def lines_from(number: int, events: int | None = None) -> list[str]:
    """The text of the source's lines from this one on."""
    return [line.data.decode(errors="replace") for line in islice(CLEAN.lines(number), events)]


def test_5_control_the_plain_client_dies_inside_a_character(clean_server: EventStreamsServer, account: Account) -> None:
    clean_server.behaviour = Behaviour(cut_after=700, cut_inside="character")
    got: list[str] = []
    with pytest.raises(UnicodeDecodeError):
        got.extend(plain_client(clean_server.url))
    fault = "the server cuts the connection inside a character; requests-sse by itself"
    account.settle("5", fault, sent=lines_from(0), found=got, control=True)


@pytest.mark.parametrize("status", [429, 500])
def test_control_the_plain_client_is_refused_and_gives_up(
    clean_server: EventStreamsServer, account: Account, status: int
) -> None:
    clean_server.behaviour = Behaviour(cut_after=700)
    events = plain_client(clean_server.url)
    got = [next(events)]
    clean_server.behaviour = Behaviour(refuse_requests=1_000, refuse_status=status)
    with pytest.raises(InvalidStatusCodeError):
        got.extend(events)
    fault = f"the server answers {status}; requests-sse by itself"
    account.settle("more", fault, sent=lines_from(0), found=got, control=True)


def test_control_the_plain_client_waits_for_ever(clean_server: EventStreamsServer, account: Account) -> None:
    clean_server.behaviour = Behaviour(stall_after=1_500)
    got: list[str] = []

    def read() -> None:
        with suppress(RequestException):  # at the end of the test, when the server goes
            got.extend(plain_client(clean_server.url))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    wait_until(lambda: len(got) >= 1_400)
    reading.join(15)
    assert reading.is_alive()
    account.settle(
        "more", "the server stalls; requests-sse by itself", sent=lines_from(0), found=list(got), control=True
    )


def test_5_control_the_plain_client_skips_an_event_cut_behind_its_id(account: Account) -> None:
    cut_behind_id = HEAD + frame(0, b"0") + frame(1, b"1").split(b"data")[0]
    got: list[str] = []
    seen: list[bytes] = []
    with wire(cut_behind_id, HEAD, seen=seen) as url, pytest.raises(InvalidStatusCodeError):  # 204: nothing more
        got.extend(plain_client(url))
    assert offset_id(1) in seen[-1]  # it asked for what comes after event 1, which it never had
    fault = "the server cuts the connection behind an event's id; requests-sse by itself"
    account.settle("5", fault, sent=["0", "1"], found=got, control=True)


def redelivering_order() -> list[Line]:
    """The lines in the order in which a server sends them that cuts after 2,000 and repeats 500."""
    lines = list(GENERATOR.lines())
    sent = lines[:2_000]
    at = 2_000
    while at < len(lines):
        begin = at - 500
        sent += lines[begin : begin + 2_000]
        at = begin + 2_000
    return sent


def test_6_redelivered_events_keep_their_ids(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    account: Account,
    undisturbed_producer: dict[str, str],
    hashes_of: HashesOf,
    settings_factory: SettingsFactory,
) -> None:
    server.behaviour = Behaviour(cut_after=2_000, redeliver=500)
    assert finish(start(source, server.url, settings)) == 0
    sent = redelivering_order()
    expected = Counter(line.event_id for line in sent if line.event_id and line.domain in FOLLOWED_DOMAINS)
    ledger: set[str] = set()
    GENERATOR.manifest(ledger=ledger)
    found = Counter(landed(settings.bootstrap_servers).ids)
    account.settle(
        "6",
        "the server re-delivers 500 events at each cut",
        sent=(event_id for event_id in expected.elements() if event_id),
        found=found.elements(),
        tries=len(server.requests) - 1,
    )
    assert set(found) == ledger
    cursor = read_cursor(settings.bootstrap_servers, source.identity)
    assert cursor is not None
    assert cursor.counters.received == len(sent)
    assert cursor.gaps_total == 0
    drained = drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))
    assert drained[BRONZE] == undisturbed_producer[BRONZE]
    # a malformed line that was delivered twice makes two letters, also of a source that holds it twice
    assert drained == hashes_of(line.data for line in sent)


def test_6_control_offsets_do_not_tell_redeliveries(
    server: EventStreamsServer, settings: ProducerSettings, source: Source, account: Account
) -> None:
    server.behaviour = Behaviour(cut_after=2_000, redeliver=500)
    assert finish(start(source, server.url, settings)) == 0
    by_place = {
        (record.partition(), record.offset()): record for record in committed(settings.bootstrap_servers, RAW_EVENTS)
    }
    account.settle(
        "6",
        "the server re-delivers 500 events at each cut; duplicates told by offset",
        sent=set(accepted_ids()),
        found=[(record.key() or b"").decode() for record in by_place.values()],
        control=True,
    )


def test_7_a_gap_is_reported(
    server: EventStreamsServer,
    settings: ProducerSettings,
    source: Source,
    account: Account,
    hashes_of: HashesOf,
    settings_factory: SettingsFactory,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert finish(start(source, server.url, settings, failpoint=f"{AFTER_COMMIT}@10")) == -signal.SIGKILL
    server.behaviour = Behaviour(retained_from=3_000)
    process = start(source, server.url, settings)
    output, _ = process.communicate(timeout=PROCESS_SECONDS)
    assert process.returncode == 0
    report = json.loads(output.splitlines()[-1])
    assert report["gaps_total"] == 1
    assert report["gaps"][0]["after"] == offset_id(999).decode()
    assert report["gaps"][0]["before"] == offset_id(3_000).decode()
    assert "WARNING" in capfd.readouterr().err
    cursor = read_cursor(settings.bootstrap_servers, source.identity)
    assert cursor is not None
    assert cursor.gaps_total == 1
    assert cursor.counters.received == GENERATOR.events - 2_000
    kept = [*islice(GENERATOR.lines(), 1_000), *GENERATOR.lines(3_000)]
    found = landed(settings.bootstrap_servers).ids
    account.settle(
        "7", "a position older than the server keeps: the gap is reported", sent=accepted_ids(kept), found=found
    )
    drained = drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))
    assert drained == hashes_of(line.data for line in kept)


def test_7_control_the_plain_client_does_not_notice(clean_server: EventStreamsServer, account: Account) -> None:
    clean_server.behaviour = Behaviour(retained_from=3_000)
    got = list(islice(plain_client(clean_server.url, offset_id(999).decode()), 100))  # no error, no sign
    assert len(got) == 100
    fault = "a position older than the server keeps; requests-sse by itself"
    account.settle("7", fault, sent=lines_from(1_000, 2_100), found=got, control=True)


GZIP_HEAD = HEAD.removesuffix(b"\r\n:ok\n\n") + b"Content-Encoding: gzip\r\n\r\n"
IDS = [f"id-{number}" for number in range(3)]

_LINE_BY_LINE = """
import gzip, resource, sys, urllib.request
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
for line in gzip.open(urllib.request.urlopen(sys.argv[1])):
    if line.startswith(b"data: {"):
        print(line[6:].decode(), end="", flush=True)
"""


def around_the_bomb() -> list[bytes]:
    """The events before and after it."""
    return [line().replace(ID, event_id).encode() for event_id in (IDS[0], IDS[2])]


def events_around_a_bomb() -> bytes:
    """Two events, and between them a line that unpacks to half a gigabyte."""
    first, last = around_the_bomb()
    bomb_begins = frame(1, b"0").removesuffix(b"0\n\n")
    return GZIP_HEAD + compressed(b":ok\n\n" + frame(0, first) + bomb_begins, b"x", b"\n\n" + frame(2, last))


def test_a_decompression_bomb_amid_the_events(
    settings: ProducerSettings,
    source: Source,
    account: Account,
    hashes_of: HashesOf,
    settings_factory: SettingsFactory,
) -> None:
    """It becomes a letter, what comes before and after it is handed on, and memory stays what it was."""
    peaks: list[int] = []

    def over() -> bool:
        with suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks.extend(1024 * int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", status))
        return process.poll() is not None

    with wire(events_around_a_bomb()) as url:
        process = start(source, url, settings)
        wait_until(over)
        assert finish(process) == 0
    found = landed(settings.bootstrap_servers)
    letters = [IDS[1]] * found.reasons[Reason.OVERSIZED]
    account.settle("more", "a decompression bomb amid the events", sent=IDS, found=[*found.ids, *letters])
    assert max(peaks) < LIMIT_BYTES < BOMB_BYTES
    drained = drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))
    assert drained[BRONZE] == hashes_of(around_the_bomb())[BRONZE]


def test_control_a_client_that_reads_line_by_line(account: Account) -> None:
    """In as much memory as the producer may use."""
    with wire(events_around_a_bomb()) as url:
        command = [sys.executable, "-c", _LINE_BY_LINE, url, str(LIMIT_BYTES)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False)
    assert "MemoryError" in done.stderr
    found = [json.loads(data)["meta"]["id"] for data in done.stdout.splitlines()]
    fault = "a decompression bomb amid the events; a client that reads line by line"
    account.settle("more", fault, sent=IDS, found=found, control=True)
