"""Case 28: a day's backlog is read while live events keep coming."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count

import pytest

from producer.eventstreams.generator import Generator
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.query import query
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.engine.bronze_lakes import streaming, totals
from wikistream_assets_tests.faults.conftest import Account, drained_hashes
from wikistream_assets_tests.faults.weak_bronze import WeakBronze
from wikistream_assets_tests.kafka_records import Message, event_message, judged, produce
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = [pytest.mark.faults, pytest.mark.spark, pytest.mark.kafka]

A_DAY = 4_400_000
"""The busiest days of the whole stream have so many: 51 a second."""

SECONDS = 3_600.0


@dataclass
class Live:
    """Sends 50 events a second until it is told to stop, and keeps their ids."""

    bootstrap_servers: str
    sent: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        sample, numbers = line(), count()
        while not self.stop.wait(0.5):
            ids = [f"live-{next(numbers)}" for _ in range(25)]
            produce(self.bootstrap_servers, [event_message(i, sample.replace(ID, i)) for i in ids])
            self.sent += ids


def test_28_a_days_backlog_while_live(
    settings_factory: SettingsFactory, fresh_topics: Broker, account: Account, kills: Callable[[int, int], int]
) -> None:
    settings = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    open_home(settings)
    lake = local_lake(settings)
    source = Generator(seed=28, events=kills(20_000, A_DAY), hours=24, redelivered=0, malformed=0, canary=0)
    sent: list[str] = []

    def backlog() -> Iterator[Message]:
        for message in judged(made.data for made in source.lines()):
            sent.append(message.key or "")
            yield message

    produce(settings.bootstrap_servers, backlog())
    live = Live(settings.bootstrap_servers)
    feeding = threading.Thread(target=live.run)
    with streaming(settings) as stream:
        feeding.start()
        started = time.monotonic()
        try:
            wait_until(lambda: lake.state(RAW_EVENTS).newest_position() and totals(lake)["rows"] > len(sent), SECONDS)
            drained = time.monotonic() - started
        finally:
            live.stop.set()
            feeding.join()
        wait_until(lambda: totals(lake)["rows"] == len(sent) + len(live.sent), SECONDS)
        stream.signal(signal.SIGTERM)
        assert stream.exit_code() == 0, stream.log
    found = (row[0] for row in query(lake, "select event_id from bronze.raw_events").rows)
    account.settle(
        "28", "a day's backlog while live events come", sent=[*sent, *live.sent], found=found, seconds=[drained]
    )
    assert table_hashes(lake) == drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))


def test_28_control_a_reader_that_begins_with_what_is_new(fresh_topics: Broker, account: Account) -> None:
    backlog, new = ([event_message(f"{when}-{n}", line()) for n in range(100)] for when in ("backlog", "live"))
    produce(fresh_topics.bootstrap_servers, backlog)
    with closing(WeakBronze(fresh_topics.bootstrap_servers, earliest=False)) as reader:
        produce(fresh_topics.bootstrap_servers, new)
        found = reader.read(len(new))
    sent = (message.key or "" for message in [*backlog, *new])
    fault = "a backlog while live events come; a reader that begins at the end, as Spark's does by default"
    account.settle("28", fault, sent=sent, found=found, control=True)
