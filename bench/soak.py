"""The pipeline under ten times the real rate for an hour: how late are events, what grows, is every event in its place?

Watched every few seconds: how far Bronze is behind, the memory of each program with all its children (``worker`` executes the
cycles), and the number of files in the warehouse, which maintenance has to bound: it keeps but 40 snapshots of a table here, so
that all come to their bound within the hour. At the end the producer is stopped, the rest drains, and the ids in the tables are
held against those that the generator makes anew; if anything is lost or doubled, it exits with 1.

``python -m bench.soak [--minutes M] [--rate R]``.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil

from bench.accounts import accounts_of, check, stop_and_drain
from bench.latency import Observer, percentiles
from bench.pipeline import pipeline
from bench.record import append
from wikistream_assets.alerts.watch import lag
from wikistream_assets.embedded import supervisor
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import query
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS

_SAMPLE_SECONDS: Final = 10.0
_WARM_UP_SECONDS: Final = 180.0
_SNAPSHOTS: Final = 40
_MIB: Final = 2**20


@dataclass(frozen=True)
class Sample:
    """One look: records that Bronze is behind, MiB resident by program (its Python and its Java apart), files in the warehouse.

    A JVM takes its heap (WIKISTREAM_SPARK_MEMORY_MB) bit by bit and gives nothing back, Python has no such bound.
    """

    behind: int
    memory: Mapping[str, float]
    files: int


def run(minutes: float = 60.0, rate: float = 500.0) -> dict[str, Any]:
    """Watch the pipeline for ``minutes``, then account for every event; print the four quarters side by side."""
    with pipeline(rate, maintenance_max_snapshots=_SNAPSHOTS) as settings:
        lake = local_lake(settings)
        observer = Observer(settings)
        samples = _watch(settings, lake, minutes, observer)
        stop_and_drain(settings, lake, observer.look)
        accounts = accounts_of(settings, lake)
        late = {"bronze": percentiles(observer.bronze_lags()), "gold": percentiles(observer.gold_lags())}
        [(cycles,)] = query(lake, "select count(distinct run_id) from dq_audit.quality_results").rows
    size = len(samples) // 4
    quarters = [_quarter(samples[size * number : size * (number + 1)]) for number in range(4)]
    print(f"\n{'median of the quarter':24}{'first':>10}{'second':>10}{'third':>10}{'last':>10}{'most':>10}")
    for name in quarters[0]:
        figures = [*(quarter.get(name, 0) for quarter in quarters), max(_figures(it).get(name, 0) for it in samples)]
        print(f"{name:24}{''.join(f'{figure:>10.0f}' for figure in figures)}")
    for layer, seconds in late.items():
        print(f"seen in {layer}: p50 {seconds['p50']:.1f} s  p95 {seconds['p95']:.1f} s")
    print(f"{cycles} cycles; {', '.join(f'{name} {number}' for name, number in accounts.items())}")
    return {
        "bench": "soak",
        "minutes": minutes,
        "events_per_second": rate,
        "quarters": quarters,
        "late": late,
        "cycles": cycles,
        **accounts,
    }


def _watch(settings: Settings, lake: Lakehouse, minutes: float, observer: Observer) -> list[Sample]:
    """Samples after the warm-up, with a line of progress each minute."""
    samples: list[Sample] = []
    time.sleep(_WARM_UP_SECONDS)
    end = time.monotonic() + 60 * minutes
    told = 0.0
    while time.monotonic() < end:
        samples.append(_sample(settings, lake))
        observer.look()
        if time.monotonic() > told + 60:
            told = time.monotonic()
            newest = samples[-1]
            figures = f"{newest.behind} behind, {sum(newest.memory.values()):.0f} MiB, {newest.files} files"
            print(f"  {(end - told) / 60:5.1f} minutes to go: {figures}", flush=True)
        time.sleep(_SAMPLE_SECONDS)
    return samples


def _sample(settings: Settings, lake: Lakehouse) -> Sample:
    waiting = lag(Broker(settings.bootstrap_servers), lake, EDITS)
    behind = sum(sum(partitions.values()) for partitions in waiting.values())
    memory: defaultdict[str, float] = defaultdict(float)
    for process in supervisor.marked_processes(settings.root):
        try:
            name = supervisor.program_name(process) or "supervisord"
            part = "Java" if process.name() == "java" else "Python"
            memory[f"{name} {part}"] += process.memory_info().rss / _MIB
        except psutil.Error:  # it has just ended
            continue
    return Sample(behind, memory, sum(1 for path in settings.warehouse.rglob("*") if path.is_file()))


def _figures(sample: Sample) -> dict[str, float]:
    memory = {f"{name}, MiB": value for name, value in sorted(sample.memory.items())}
    return {"records behind": sample.behind, "files": sample.files, **memory}


def _quarter(samples: Sequence[Sample]) -> dict[str, float]:
    figures = [_figures(sample) for sample in samples]
    names = sorted({name for of_sample in figures for name in of_sample})
    return {name: round(statistics.median(of_sample.get(name, 0) for of_sample in figures), 1) for name in names}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to watch")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    options = parser.parse_args()
    figures = run(options.minutes, options.rate)
    append(figures)
    check(figures)


if __name__ == "__main__":
    main()
