"""After an outage: how fast Bronze takes what an hour has piled up in Kafka, while new events keep coming.

The pipeline runs at the real rate; its stream is stopped, an hour of events is put into the topic beside the producer's, and the
stream is started again. ``python -m bench.catch_up [--events N] [--rate R]``.
"""

import argparse
import time
from typing import Any, Final

from bench.bronze import fill
from bench.pipeline import pipeline
from bench.record import append
from producer.topics import EVENT_TOPICS
from wikistream_assets.embedded import supervisor
from wikistream_assets.embedded.home import is_locked
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.batch import Counts
from wikistream_assets.kafka.broker import Broker, Positions
from wikistream_assets.lake.state import Version
from wikistream_assets.streams.edits.tables import RAW_EVENTS

WANTED_PER_SECOND: Final = 5_000

_POLL_SECONDS: Final = 0.5


def run(events: int = 180_000, rate: float = 50.0) -> dict[str, Any]:
    """Stop the stream, pile up ``events``, start it again; print how long they take.

    Returns:
        Records a second from the moment the stream is ready (its JVM started) to the commit of the last of them, and the
        seconds before that.
    """
    with pipeline(rate, cycle_first_seconds=86_400) as settings:
        lake, broker = local_lake(settings), Broker(settings.bootstrap_servers)
        while lake.state(RAW_EVENTS).newest_position() is None:
            time.sleep(_POLL_SECONDS)
        supervisor.call(settings, "stopProcess", "stream")
        before = lake.state(RAW_EVENTS).newest_position()
        fill(settings, events)
        backlog = broker.ends(EVENT_TOPICS)
        begun = time.time()
        supervisor.call(settings, "startProcess", "stream", False)  # supervisord's own signature
        while not is_locked(settings, RAW_EVENTS.identifier):  # the stream has its JVM and is Bronze's writer
            time.sleep(_POLL_SECONDS)
        ready = time.time()
        while not _reached(lake.state(RAW_EVENTS).newest_position(), backlog, broker):
            time.sleep(_POLL_SECONDS)
        done = [v for v in lake.state(RAW_EVENTS).history() if v.position is not None and v.timestamp_ms / 1000 > begun]
        last = next(version for version in reversed(done) if _reached(version, backlog, broker))
    records = (Counts.total_of(last) - Counts.total_of(before)).records
    seconds = last.timestamp_ms / 1000 - ready
    figures = {
        "bench": "catch_up",
        "records": records,
        "start_seconds": round(ready - begun, 1),
        "seconds": round(seconds, 1),
        "per_second": round(records / seconds),
        "wanted_per_second": WANTED_PER_SECOND,
    }
    print(
        f"{records} records in {seconds:.1f} s after a start of {figures['start_seconds']} s: {figures['per_second']}/s "
        f"(at least {WANTED_PER_SECOND})"
    )
    return figures


def _reached(version: Version | None, ends: Positions, broker: Broker) -> bool:
    return not broker.has_committed_records((version and version.position) or {}, ends)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.catch_up", description=__doc__)
    parser.add_argument("--events", type=int, default=180_000, help="lines of the outage")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second that keep coming")
    options = parser.parse_args()
    append(run(options.events, options.rate))


if __name__ == "__main__":
    main()
