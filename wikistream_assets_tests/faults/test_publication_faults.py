"""A publication of four tables, watched by a foreign reader while it is killed: what fault case 21 is about, at the catalog.

The reader knows nothing of WikiStream but where its catalog is. Each of its polls reads the pointers of all four tables in one
query, and then what the metadata there says.
"""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.state import MAIN, POSITION_KEY
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import GOLD_TABLES
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.faults.publisher import NUMBER

pytestmark = [pytest.mark.faults, pytest.mark.local]

_POINTERS = "SELECT table_name, metadata_location FROM iceberg_tables WHERE table_namespace = 'gold'"
_PER_LAKE = 100
"""Publications of one lake: each commit writes all snapshots down, so a new one is faster than a long history."""


@cache
def published_number(location: str) -> int:
    """The number of the publication that main of a table holds, as its metadata file says; 0 before the first."""
    metadata = json.loads(Path(local_path(location)).read_text())
    by_id = {snapshot["snapshot-id"]: snapshot for snapshot in metadata["snapshots"]}
    position = by_id[metadata["refs"][MAIN]["snapshot-id"]]["summary"].get(POSITION_KEY)
    return int(json.loads(position)[NUMBER]) if position else 0


class Reader(threading.Thread):
    """Polls the catalog until it is stopped; keeps what must not be seen.

    Attributes:
        polls: how often it has looked.
        faults: a line for each poll that saw two versions, or an older one than the poll before.
    """

    def __init__(self, catalog: Path) -> None:
        super().__init__(daemon=True)
        self._catalog, self._stop_it = catalog, threading.Event()
        self.polls, self.faults, self.seconds = 0, list[str](), 0.0

    def run(self) -> None:
        newest, started = 0, time.monotonic()
        with closing(sqlite3.connect(self._catalog, timeout=30)) as connection:
            while not self._stop_it.wait(0.001):
                try:
                    seen = {name: published_number(where) for name, where in connection.execute(_POINTERS).fetchall()}
                except FileNotFoundError:
                    continue  # so old that its metadata file is gone already: another poll
                self.polls += 1
                if len(set(seen.values())) > 1:
                    self.faults.append(f"poll {self.polls}: a mix, {seen}")
                elif min(seen.values()) < newest:
                    self.faults.append(f"poll {self.polls}: back from {newest}, {seen}")
                newest = max(newest, *seen.values())
        self.seconds = time.monotonic() - started

    def stop(self) -> None:
        self._stop_it.set()
        self.join()


def publish(settings: Settings, count: int, *how: str, killed_after: float | None = None) -> bool:
    """Publish ``count`` times in a separate process, or until it is killed; returns whether the kill found it alive."""
    command = [sys.executable, "-m", "wikistream_assets_tests.faults.publisher", str(settings.root), str(count), *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if killed_after is None:
            process.communicate(timeout=600)
            assert process.returncode == 0
            return False
        process.stdout.readline()  # the first one is about to be published
        time.sleep(killed_after)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def watched(settings_factory: SettingsFactory, publications: int, kills: int, *how: str) -> tuple[Reader, int, int]:
    """Publish so often, killed so often; what readers saw in all, how many publications were seen, how many kills were kills."""
    moments, polls, faults, seconds, numbers, killed = random.Random(21), 0, list[str](), 0.0, 0, 0
    reader = None
    for begin in range(0, publications, _PER_LAKE):
        settings = settings_factory()
        open_home(settings)
        lake = local_lake(settings)
        reader = Reader(settings.catalog_db)
        reader.start()
        here = min(_PER_LAKE, publications - begin)
        of_them = kills * here // publications
        for _ in range(of_them):
            killed += publish(settings, 3, *how, killed_after=moments.uniform(0.0, 0.1))
        done = lake.state(GOLD_TABLES[0]).position.get(NUMBER, 0)
        publish(settings, max(here - done, 1), *how)
        reader.stop()
        polls, faults, seconds = polls + reader.polls, faults + reader.faults, seconds + reader.seconds
        numbers += lake.state(GOLD_TABLES[0]).position[NUMBER]
    assert reader is not None
    reader.polls, reader.faults, reader.seconds = polls, faults, seconds
    return reader, numbers, killed


@pytest.mark.short
def test_21_a_reader_never_sees_two_versions(
    settings_factory: SettingsFactory, account: Account, kills: Callable[[int, int], int]
) -> None:
    reader, published, killed = watched(settings_factory, kills(30, 1_000), kills(3, 100))
    assert reader.polls > 100 * reader.seconds
    sent = [f"publication {number}" for number in range(published)]
    fault = "four tables published together, kill -9; a foreign reader's polls that saw two versions, or an older one"
    account.settle("21", fault, sent=sent, found=[*sent, *reader.faults], tries=published, kills=killed)


@pytest.mark.short
def test_21_control_tables_published_one_after_the_other(
    settings_factory: SettingsFactory, account: Account, kills: Callable[[int, int], int]
) -> None:
    reader, published, killed = watched(settings_factory, kills(30, 100), kills(3, 10), "one by one")
    assert reader.faults
    sent = [f"publication {number}" for number in range(published)]
    fault = "four tables published one after the other; a foreign reader's polls that saw two versions"
    found = [*sent, *reader.faults]
    account.settle("21", fault, sent=sent, found=found, tries=published, kills=killed, control=True)
