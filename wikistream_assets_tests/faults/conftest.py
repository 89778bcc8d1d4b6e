"""What the fault cases share: how often to kill, the account of each case, and going on where a run was broken off.

``--full`` kills as often as the published table says; without it the same cases run in their short form. ``--resume`` leaves out
what has passed before on the same commit. Every run appends to ``build/faults.jsonl``, of which ``python -m
wikistream_assets_tests.faults.report`` makes docs/RELIABILITY.md.
"""

import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.eventstreams.recording import Recording, Synthetic
from producer.eventstreams.server import EventStreamsServer
from producer.launch import Source, source_from
from producer.settings import ProducerSettings
from producer.sink import read_cursor
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.ingest import drain
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, empty_topics
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, totals
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.faults.bronze_sends import EVENTS, LETTERS
from wikistream_assets_tests.faults.producing import (
    GENERATOR,
    Given,
    accepted_ids,
    finish,
    producer_settings,
    start,
)
from wikistream_assets_tests.faults.report import Case, Result, append, commit, is_result, passed_on, read
from wikistream_assets_tests.producer.kafka_reader import landed

_ACCOUNT = pytest.StashKey[list[Case]]()


@dataclass(frozen=True)
class Account:
    """Takes down how a case ended; the case fails if anything was lost or doubled, a control if nothing was."""

    cases: list[Case]

    def settle(
        self,
        number: str,
        fault: str,
        *,
        sent: Iterable[str],
        found: Iterable[str],
        tries: int = 1,
        kills: int = 0,
        seconds: Iterable[float] = (),
        control: bool = False,
    ) -> None:
        """Compare what was sent with what was found.

        Args:
            number: the case's number in the project's catalogue of faults, by which the published table is ordered.
            fault: what was done, for the published table.
            sent / found: ids, as often as they should be there, and as often as they are.
            tries: how often the fault was made.
            kills: how many of these were a SIGKILL that found the process alive.
            seconds: where it was measured: producer and Bronze from the start that follows to the first new commit, the broker
                from its death until it answers.
            control: a weaker way of working under the same fault, which has to be seen to fail.
        """
        expected, there = Counter(sent), Counter(found)
        case = Case(
            number=number,
            fault=fault,
            control=control,
            tries=tries,
            kills=kills,
            sent=expected.total(),
            lost=(expected - there).total(),
            doubled=(there - expected).total(),
            seconds=tuple(round(second, 1) for second in seconds),
        )
        self.cases.append(case)
        if control:
            assert case.lost + case.doubled > 0, f"the control did not fail: {case}"
        else:
            assert (case.lost, case.doubled) == (0, 0), case


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Account:
    """The account of this case."""
    return Account(request.node.stash.setdefault(_ACCOUNT, []))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """How often to kill: the first number in the short form, the second in the full one."""
    full = request.config.getoption("--full")
    return lambda short, long: long if full else short


Undisturbed = Callable[[Lakehouse, Settings], None]


@pytest.fixture
def assert_undisturbed(settings_factory: SettingsFactory) -> Undisturbed:
    """Every record of ``bronze_sends`` is there and counted once; the tables are those of a drain that nothing happened to."""

    def check(lake: Lakehouse, settings: Settings, letters: int = LETTERS) -> None:
        assert totals(lake) == {
            "records": EVENTS + EVENTS // 10 + letters,
            "rows": EVENTS,
            "dead_letters": letters,
            "duplicates": EVENTS // 10,
        }
        assert_sound(lake)
        assert table_hashes(lake) == drained_hashes(settings_factory(bootstrap_servers=settings.bootstrap_servers))

    return check


def drained_hashes(settings: Settings) -> dict[str, str]:
    """The hashes of a new lake into which all that Kafka holds was drained."""
    open_home(settings)
    lake = local_lake(settings)
    drain(job_in(settings))
    return table_hashes(lake)


def cycled_hashes(settings: Settings) -> dict[str, str]:
    """The hashes of a new lake into which all that Kafka holds came at once, in one cycle."""
    gates = GateLake(settings)
    drain(gates.ctx)
    assert all(report.passed for report in gates.cycle())
    return table_hashes(gates.lake)


def produce_undisturbed(recording: Recording, broker: Broker, broker_settings: Settings) -> None:
    """Leave in the broker what the producer makes of a recording when nothing happens, and nothing else."""
    empty_topics(broker, broker_settings)
    settings = producer_settings(broker)
    with EventStreamsServer(recording) as server:
        assert finish(start(source_from("synthetic", settings, GENERATOR), server.url, settings)) == 0


@pytest.fixture(scope="session")
def undisturbed_producer(
    broker: Broker, broker_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The hashes of the lake that the producer's cases end with where nothing happens."""
    produce_undisturbed(Synthetic(GENERATOR), broker, broker_settings)
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    return drained_hashes(Settings(home=home, bootstrap_servers=broker.bootstrap_servers))


HashesOf = Callable[[Iterable[bytes]], dict[str, str]]


@pytest.fixture
def hashes_of(broker: Broker, broker_settings: Settings, settings_factory: SettingsFactory) -> HashesOf:
    """The hashes of the lake that a source of just these lines ends with where nothing happens; the topics are emptied."""

    def undisturbed(lines: Iterable[bytes]) -> dict[str, str]:
        produce_undisturbed(Given(tuple(lines)), broker, broker_settings)
        return drained_hashes(settings_factory(bootstrap_servers=broker.bootstrap_servers))

    return undisturbed


@pytest.fixture
def source(settings: ProducerSettings) -> Source:
    """The source of the producer's cases, as the producer is told of it."""
    return source_from("synthetic", settings, GENERATOR)


@pytest.fixture
def server() -> Iterator[EventStreamsServer]:
    """The server of the producer's cases."""
    with EventStreamsServer(Synthetic(GENERATOR)) as running:
        yield running


@dataclass(frozen=True)
class ExactlyOnce:
    """The end of each case of the producer, see ``__call__``."""

    account: Account
    undisturbed: dict[str, str]
    settings_factory: SettingsFactory

    def __call__(
        self,
        settings: ProducerSettings,
        source: Source,
        number: str,
        fault: str,
        tries: int = 1,
        kills: int = 0,
        seconds: Sequence[float] = (),
    ) -> None:
        """Every accepted line lies in raw-events as often as it was sent, every malformed one in dlq-events; the counters agree.

        What Bronze makes of it are the tables of a run that nothing happened to.
        """
        truth = GENERATOR.manifest()
        found = landed(settings.bootstrap_servers)
        self.account.settle(
            number, fault, sent=accepted_ids(), found=found.ids, tries=tries, kills=kills, seconds=seconds
        )
        assert found.reasons == truth.malformed
        cursor = read_cursor(settings.bootstrap_servers, source.identity)
        assert cursor is not None
        assert cursor.counters.as_dict() == {
            "received": truth.lines,
            "accepted": truth.unique + truth.redelivered,
            "filtered": truth.filtered,
            "canary": truth.canary,
            "dead_lettered": dict(sorted(truth.malformed.items())),
        }
        assert cursor.gaps_total == 0
        drained = drained_hashes(self.settings_factory(bootstrap_servers=settings.bootstrap_servers))
        assert drained == self.undisturbed


@pytest.fixture
def assert_exactly_once(
    account: Account, undisturbed_producer: dict[str, str], settings_factory: SettingsFactory
) -> ExactlyOnce:
    """What each case of the producer ends with."""
    return ExactlyOnce(account, undisturbed_producer, settings_factory)


SmallDisk = Callable[[Path, int], None]


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Makes a folder that is a disk of so many MiB; it is taken away at the end."""
    mounted: list[Path] = []

    def mount(folder: Path, megabytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a small disk needs root")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def catalog_locked(catalog: Path) -> Iterator[None]:
    """Hold the catalog's lock: nobody commits meanwhile."""
    with closing(sqlite3.connect(catalog, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def fill(folder: Path) -> Path:
    """Fill the disk on which ``folder`` lies, to the last block; removing the file that is returned makes room again."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has passed on this commit, if asked to."""
    if not config.getoption("--resume"):
        return
    current = commit()
    # a run on changed files shows nothing about the next one
    passed = passed_on(current, read()) if current[-1] != "+" else set()
    done = [item for item in items if item.nodeid in passed]
    items[:] = [item for item in items if item.nodeid not in passed]
    config.hook.pytest_deselected(items=done)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Append a line for each case, also for one that failed or was skipped, and for one that could not begin or clear up."""
    report = yield
    counts = item.get_closest_marker("faults") and item.config.getoption("--full")
    if counts and is_result(report.when or "", report.passed):
        result = Result(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
            test=item.nodeid,
            passed=report.passed,
            cases=tuple(item.stash.get(_ACCOUNT, [])),
        )
        append(result)
    return report
