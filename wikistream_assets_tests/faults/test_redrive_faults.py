"""Redrive under fire: killed around its commit, killed at random, two at once. Each letter comes back once.

The oracle is what lies in ``raw-events`` itself: Bronze would remove a doubled event by its id, and hide the fault.
"""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
from pyspark.sql import SparkSession

from producer.exceptions import FencedError
from producer.failpoints import AFTER_COMMIT, AFTER_PRODUCE
from producer.redrive import Judge, Letter, Place, Redriver
from producer.topics import DLQ_EVENTS
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.ingest import drain
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.upkeep import redrive as job
from wikistream_assets.upkeep.redrive import Selection, redrive
from wikistream_assets_tests.cli import runner
from wikistream_assets_tests.conftest import SettingsFactory, empty_topics
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, event_ids
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.kafka_records import Message, produce
from wikistream_assets_tests.producer.kafka_reader import landed
from wikistream_assets_tests.upkeep.test_redrive import big, letter

pytestmark = [pytest.mark.faults, pytest.mark.spark, pytest.mark.kafka]

LETTERS = 1_200
"""Three transactions."""

IDS = [f"big-{number}" for number in range(LETTERS)]
PROCESS_SECONDS = 120.0


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)


def send_letters(lake: Lakehouse, settings: Settings) -> None:
    """Letters in Kafka and in the lake, all of them events by today's settings."""
    produce(settings.bootstrap_servers, letter_messages())
    drain(job_in(settings))


@pytest.fixture(scope="module")
def undisturbed(broker: Broker, broker_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of a lake whose letters came back with nothing happening."""
    empty_topics(broker, broker_settings)
    calm = Settings(home=tmp_path_factory.mktemp("calm") / "home", bootstrap_servers=broker.bootstrap_servers)
    open_home(calm)
    lake = local_lake(calm)
    send_letters(lake, calm)
    assert redrive(lake, EDITS, calm, Selection()).accepted == LETTERS
    drain(job_in(calm))
    return table_hashes(lake)


@dataclass(frozen=True)
class Once:
    """The end of each case, see ``__call__``."""

    spark: SparkSession
    lake: Lakehouse
    settings: Settings
    account: Account
    undisturbed: dict[str, str]

    def __call__(self, fault: str, tries: int = 1, kills: int = 0) -> None:
        """Each letter came back once, and Bronze's tables are those of a redrive that nothing happened to."""
        found = landed(self.settings.bootstrap_servers).ids
        self.account.settle("11", fault, sent=IDS, found=found, tries=tries, kills=kills)
        drain(job_in(self.settings))
        assert event_ids(self.lake) == sorted(IDS)
        assert_sound(self.lake)
        assert table_hashes(self.lake) == self.undisturbed


@pytest.fixture
def assert_once(
    undisturbed: dict[str, str], spark: SparkSession, lake: Lakehouse, settings: Settings, account: Account
) -> Once:
    """Letters that wait for a redrive, and what each case ends with."""
    send_letters(lake, settings)
    return Once(spark, lake, settings, account, undisturbed)


@cache
def letter_messages() -> list[Message]:
    """The letters, as the producer sends them."""
    return [letter(big(number).encode()) for number in range(LETTERS)]


def start(settings: Settings, **variables: str) -> subprocess.Popen[str]:
    return runner.start("dlq", "redrive", settings=settings, **variables)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=PROCESS_SECONDS)
    return process.returncode, errors


def test_killed_around_each_commit(settings: Settings, assert_once: Once) -> None:
    kills = (f"{AFTER_PRODUCE}@1", f"{AFTER_COMMIT}@1", f"{AFTER_PRODUCE}@2")
    for place in kills:
        code, errors = ended(start(settings, WIKISTREAM_FAILPOINT=place))
        assert code == -signal.SIGKILL, errors
    done = landed(settings.bootstrap_servers).ids
    assert len(done) == 2 * job._BATCH_LETTERS  # nothing of the two open transactions
    code, errors = ended(start(settings))
    assert code == 0, errors
    assert_once("redrive kill -9 before and after its commit", tries=len(kills), kills=len(kills))


def test_control_notes_beside_the_events(
    spark: SparkSession, lake: Lakehouse, settings: Settings, account: Account
) -> None:
    """Killed between the events and the note of them, and started again: the same letters come back twice."""
    send_letters(lake, settings)
    judge = Judge(settings)
    judged = (judge.judge(Letter(Place(DLQ_EVENTS, 0, n), 0, "live", big(n).encode())) for n in range(100))
    records = [record for _, record in judged if record is not None]
    produce(settings.bootstrap_servers, [Message(r.topic, r.value, (r.key or b"").decode()) for r in records])
    redrive(lake, EDITS, settings, Selection())
    found = landed(settings.bootstrap_servers).ids
    account.settle("11", "redrive kill -9; events first, note of them afterwards", sent=IDS, found=found, control=True)


@pytest.mark.parametrize(
    ("by", "few", "many", "fault"),
    [
        (signal.SIGKILL, 3, 20, "redrive kill -9 at random"),
        (signal.SIGTERM, 1, 5, "redrive SIGTERM at random"),
    ],
    ids=["killed", "told"],
)
def test_ended_at_random(
    settings: Settings,
    assert_once: Once,
    kills: Callable[[int, int], int],
    by: signal.Signals,
    few: int,
    many: int,
    fault: str,
) -> None:
    moments = random.Random(11)
    tries, killed = kills(few, many), 0
    for _ in range(tries):
        process = start(settings)
        time.sleep(moments.uniform(1.0, 3.0))  # the moment of the fault itself, not a wait for anything
        process.send_signal(by)
        killed += ended(process)[0] == -signal.SIGKILL
    code, errors = ended(start(settings))
    assert code == 0, errors
    assert_once(fault, tries=tries, kills=killed)


def test_two_at_once(lake: Lakehouse, settings: Settings, assert_once: Once) -> None:
    """A redrive has looked at what is due; another one does the work meanwhile; the first goes on and is fenced."""
    first = Redriver(settings)
    assert not any(Place(DLQ_EVENTS, 0, number) in first.dealt_with for number in range(100))
    assert redrive(lake, EDITS, settings, Selection()).accepted == LETTERS
    due = [Letter(Place(DLQ_EVENTS, 0, number), 0, "live", big(number).encode()) for number in range(100)]
    with pytest.raises(FencedError):
        first.redrive(due)
    assert_once("two redrives at once: the older one is fenced")
