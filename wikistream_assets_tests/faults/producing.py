"""What the cases of the producer send, and the producer as the process that sends it."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from producer.envelope import SourceMode
from producer.eventstreams.generator import Generator, Line
from producer.launch import Source, producer_command
from producer.settings import ProducerSettings, child_environment
from producer.sse import Frame
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.kafka.broker import Broker

GENERATOR = Generator(events=8_000, malformed=0.005, oversized_bytes=1_000_100)
PROCESS_SECONDS = 120.0


@dataclass(frozen=True)
class Given:
    """A recording of exactly these lines."""

    lines: tuple[bytes, ...]
    identity: str = "given"
    mode: SourceMode = "synthetic"

    def frames(self, first: int = 0) -> Iterator[Frame]:
        return (Frame(line) for line in self.lines[first:])


def producer_settings(broker: Broker) -> ProducerSettings:
    """Small batches, so that a kill falls between many of them; short waits."""
    return ProducerSettings(
        bootstrap_servers=broker.bootstrap_servers,
        producer_batch_events=100,
        producer_backoff_seconds=0.05,
        producer_backoff_max_seconds=0.2,
    )


def start(source: Source, url: str, settings: ProducerSettings, **change: object) -> subprocess.Popen[str]:
    """Start the producer as a process."""
    environment = child_environment(settings.model_copy(update=change))
    return subprocess.Popen(producer_command(source, url), env=environment, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> int:
    """Wait for a process that ends by itself; its exit code."""
    process.communicate(timeout=PROCESS_SECONDS)
    return process.returncode


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Let no process outlive its test."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def accepted_ids(lines: Iterable[Line] | None = None) -> list[str]:
    """The ids that the producer has to hand on, of all lines or of these."""
    followed = (line for line in lines or GENERATOR.lines() if line.domain in FOLLOWED_DOMAINS)
    return [line.event_id for line in followed if line.event_id]
