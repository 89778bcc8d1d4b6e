"""The producer, from a local EventStreams server to committed in Kafka, against what requests-sse alone reads of the same stream.

Every side runs in a process of its own, in turn, against the same server of the same recording; the clock runs from
before connecting to the last event read (requests-sse) or committed (producer). All domains pass, so that every event is stored.
``python -m bench.producer``.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from producer.eventstreams.generator import Generator
from producer.launch import Source, run_producer, served, source_from
from producer.settings import ProducerSettings, child_environment
from wikistream_assets.embedded import services
from wikistream_assets.settings import Settings

RATIO_WANTED: Final = 0.3
EVENTS: Final = 100_000

_PORT: Final = 19_894
"""Of the bench's own broker; the next one is its controller's."""

_CLIENT: Final = """
import json, sys, time
from requests_sse import EventSource

count, began = 0, time.monotonic()
with EventSource(sys.argv[1]) as source:
    for event in source:
        count += 1
        if count == int(sys.argv[2]):
            break
    print(json.dumps({"events": count, "seconds": time.monotonic() - began}))
"""


def run(rounds: int = 5) -> dict[str, Any]:
    """Measure both sides in turn, ``rounds`` times, and print the medians.

    Returns:
        Rates in events/s and their ratio.
    """
    with tempfile.TemporaryDirectory(prefix="bench-producer-") as folder:
        capture = _recording(Path(folder) / "stream.jsonl")
        with _broker(Path(folder) / "home") as settings:
            source = source_from(str(capture), settings)
            pairs = [(_requests_sse(source, settings), _producer(source, settings, number)) for number in range(rounds)]
    alone, whole = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    print(f"{'requests-sse alone':<40}{alone:>12,.0f} events/s")
    print(f"{'producer, committed in Kafka':<40}{whole:>12,.0f} events/s")
    print(f"{'ratio (wanted: at least ' + str(RATIO_WANTED) + ')':<40}{ratio:>12.2f}")
    return {
        "bench": "producer",
        "events": EVENTS,
        "rounds": rounds,
        "requests_sse_per_s": round(alone),
        "producer_per_s": round(whole),
        "ratio": round(ratio, 3),
        "wanted": RATIO_WANTED,
        "met": ratio >= RATIO_WANTED,
    }


def _recording(path: Path) -> Path:
    """The stream as a file, so that the server's work is reading lines, not inventing them."""
    with path.open("wb") as file:
        for line in Generator(events=EVENTS, malformed=0.0, canary=0.0).lines():
            file.write(line.data + b"\n")
    return path


@contextmanager
def _broker(home: Path) -> Iterator[ProducerSettings]:
    settings = Settings(home=home, kafka_port=_PORT, kafka_controller_port=_PORT + 1)
    try:
        services.up(settings)
        yield ProducerSettings(bootstrap_servers=settings.bootstrap_servers, domains="*")
    finally:
        services.down(settings)


def _requests_sse(source: Source, settings: ProducerSettings) -> float:
    """Events/s that requests-sse hands over when nothing is done with them."""
    with served(source, settings) as url:
        command = [sys.executable, "-c", _CLIENT, url, str(EVENTS)]
        output = subprocess.run(
            command, env=child_environment(settings), capture_output=True, text=True, check=True
        ).stdout
    result = json.loads(output)
    return float(result["events"] / result["seconds"])


def _producer(source: Source, settings: ProducerSettings, number: int) -> float:
    """Events/s from the server to committed."""
    # another identity each time: the producer would go on where the last round ended
    report = run_producer(replace(source, identity=f"{source.identity},round={number}"), settings)
    if report["run"]["accepted"] != EVENTS:
        raise RuntimeError(f"{report['run']} instead of {EVENTS} accepted events")
    return float(EVENTS / report["seconds"])


if __name__ == "__main__":
    print(json.dumps(run()))
