"""The running pipeline: how soon an event is seen in Bronze and in Gold, and how soon each part is back after ``kill -9``;
and whether every event is in its place at the end of both, else it exits with 1.

The pipeline is started as ``make up`` starts it, on the synthetic source in the time of the clock; what sent and seen mean says
``bench.latency``. ``python -m bench.always_on [--minutes M] [--rate R] [--kills N]``.
"""

import argparse
import os
import signal
import statistics
import time
from typing import Any, Final

from bench.accounts import accounts_of, check, stop_and_drain
from bench.latency import WARM_UP_SECONDS, Observer, percentiles
from bench.pipeline import pipeline
from bench.record import append
from producer.sink import read_cursor
from wikistream_assets.embedded import services
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS

WANTED: Final = {"bronze_paused": 3.0, "bronze_cycling": 6.0, "gold_cycling": 90.0}
"""p95 from sent to seen, seconds."""

RECOVERY_WANTED: Final = {"producer": 3.0, "stream": 30.0, "broker": 20.0}
"""From ``kill -9`` to the first new commit, seconds: of the producer to Kafka; of Bronze where stream or broker died."""

_POLL_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 60.0

_IN_HAND_SECONDS: Final = {"producer": 0.5, "stream": 1.5, "broker": 1.5}
"""What was in hand at the kill may still be committed then, which is no recovery; no new process is as far so soon."""


def run(minutes: float = 30.0, rate: float = 50.0, kills: int = 5) -> dict[str, Any]:
    """Measure ``minutes`` with cycles paused, then the recoveries, then as long with cycles back to back; print a table."""
    figures: dict[str, Any] = {"bench": "always_on", "minutes": minutes, "events_per_second": rate}
    with pipeline(rate, cycle_first_seconds=86_400) as settings:
        observer = _observe(settings, minutes, "cycles paused")
        figures["bronze_paused"] = _latency("bronze_paused", observer.bronze_lags())
        figures["recovery"] = {name: _recovery(settings, name, kills) for name in RECOVERY_WANTED}
        figures["accounts_paused"] = _accounts(settings, observer, published=False)
    with pipeline(rate, cycle_first_seconds=0, cycle_pause_seconds=0) as settings:
        observer = _observe(settings, minutes, "cycles back to back")
        figures["bronze_cycling"] = _latency("bronze_cycling", observer.bronze_lags())
        figures["accounts_cycling"] = _accounts(settings, observer)
        # now that all is published: what Gold was late with at the end counts as well
        figures["gold_cycling"] = _latency("gold_cycling", observer.gold_lags())
    return figures


def _observe(settings: Settings, minutes: float, what: str) -> Observer:
    """Watch the pipeline for so long after its warm-up, with a sign of life each minute."""
    observer = Observer(settings)
    end = time.monotonic() + WARM_UP_SECONDS + 60 * minutes
    while (left := end - time.monotonic()) > 0:
        print(f"  {what}: {left / 60:.1f} minutes to go", flush=True)
        time.sleep(min(_LOOK_SECONDS, left))
        observer.look()
    return observer


def _latency(name: str, lags: list[float]) -> dict[str, float]:
    found = percentiles(lags)
    print(f"{name:15} p50 {found['p50']:6.1f} s  p95 {found['p95']:6.1f} s (at most {WANTED[name]:g})", flush=True)
    return found


def _accounts(settings: Settings, observer: Observer, *, published: bool = True) -> dict[str, int]:
    lake = local_lake(settings)
    stop_and_drain(settings, lake, observer.look, published=published)
    accounts = accounts_of(settings, lake, published=published)
    print(", ".join(f"{name} {number}" for name, number in accounts.items()), flush=True)
    return accounts


def _recovery(settings: Settings, name: str, kills: int) -> list[float]:
    """Seconds from ``kill -9`` of a program to the next commit, each time."""
    seconds: list[float] = []
    pid = None
    for _ in range(kills):
        pid = _other_process(settings, name, pid)
        _next_commit(settings, time.time())  # it works
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        time.sleep(_IN_HAND_SECONDS[name])
        found = _next_transaction(settings) if name == "producer" else _next_commit(settings, time.time())
        seconds.append(found - killed)
    print(
        f"recovery {name:9} median {statistics.median(seconds):5.1f} s  most {max(seconds):5.1f} s"
        f" (at most {RECOVERY_WANTED[name]:g})",
        flush=True,
    )
    return seconds


def _other_process(settings: Settings, name: str, before: int | None) -> int:
    """Its process, another than ``before``, once it has settled: one that dies sooner is given a pause by supervisord."""
    while True:
        service = next(service for service in services.status(settings) if service.name == name)
        if service.state == "RUNNING" and service.pid and service.pid != before:
            return service.pid
        time.sleep(_POLL_SECONDS)


def _next_commit(settings: Settings, after: float) -> float:
    """When Bronze made its first commit of rows later than ``after``, seconds since 1970."""
    while True:
        history = local_lake(settings).state(RAW_EVENTS).history()
        commits = [v.timestamp_ms / 1000 for v in history if v.position is not None and v.added_records]
        if later := [commit for commit in commits if commit > after]:
            return min(later)
        time.sleep(_POLL_SECONDS)


def _next_transaction(settings: Settings) -> float:
    """When the producer's place was first seen further on than it is now, seconds since 1970."""
    identity = choose_source(settings, "synthetic").source.identity
    before = read_cursor(settings.bootstrap_servers, identity)
    while read_cursor(settings.bootstrap_servers, identity) == before:
        time.sleep(_POLL_SECONDS)
    return time.time()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.always_on", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each of the two phases")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    parser.add_argument("--kills", type=int, default=5, help="of each program")
    options = parser.parse_args()
    figures = run(options.minutes, options.rate, options.kills)
    append(figures)
    for phase in ("accounts_paused", "accounts_cycling"):
        check(figures[phase])


if __name__ == "__main__":
    main()
