"""What tests ask of a pipeline that runs by itself, and what they do to it."""

import json
import signal
from collections import Counter
from contextlib import suppress
from itertools import islice

import dagster as dg
import psutil

from producer import position
from producer.eventstreams.generator import FIRST_OFFSET, TOPIC, Generator
from producer.launch import read_cursor
from producer.topics import EVENT_TOPICS
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.embedded import services
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets_tests.conftest import wait_until

SECONDS = 1_200.0
"""Longest wait for anything that the loop does by itself: on a slow machine a cycle takes minutes."""


def pid_of(settings: Settings, name: str) -> int:
    """The process of a program, waited for while it is being started again."""
    return wait_until(lambda: [it.pid for it in services.status(settings) if it.name == name and it.pid])[0]


def wait_until_read(settings: Settings) -> None:
    """Return once Bronze holds everything that is in Kafka now."""
    lake, broker = local_lake(settings), Broker(settings.bootstrap_servers)
    ends = broker.ends(EVENT_TOPICS)
    wait_until(lambda: not broker.has_committed_records(lake.state(RAW_EVENTS).position, ends), SECONDS)


def sent(settings: Settings) -> tuple[Counter[str], int]:
    """What the generator says it sent up to the producer's cursor: ids of followed events, and the malformed lines."""
    kept = json.loads((settings.root / "run" / "source.json").read_text())["synthetic"]
    source = choose_source(settings, "synthetic").source
    generator = source.generator
    assert generator is not None
    assert generator == Generator.lasting(generator.start, kept["events_per_second"], kept["seed"])
    cursor = read_cursor(source, settings)
    assert cursor is not None
    assert cursor.position is not None
    offset = position.parse(cursor.position)[TOPIC, 0].offset
    assert offset is not None
    lines = list(islice(generator.lines(), offset - FIRST_OFFSET + 1))
    assert cursor.counters.received == len(lines), "each line was read once"
    ids = {line.event_id for line in lines if line.event_id and line.domain in FOLLOWED_DOMAINS and not line.defect}
    return Counter(identifier for identifier in ids if identifier), sum(line.defect is not None for line in lines)


def cycles(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> list[dg.RunRecord]:
    """The cycles in these states, oldest first."""
    return list(instance.get_run_records(dg.RunsFilter(job_name="cycle", statuses=list(statuses) or None)))[::-1]


def wait_for_success(instance: dg.DagsterInstance, more: int = 1) -> None:
    """Return once so many further cycles have passed."""
    before = len(cycles(instance, dg.DagsterRunStatus.SUCCESS))
    wait_until(lambda: len(cycles(instance, dg.DagsterRunStatus.SUCCESS)) >= before + more, SECONDS)


def wait_for_work(instance: dg.DagsterInstance) -> tuple[str, int]:
    """Wait until a cycle is in its first step; return its run id and its process id."""

    def at_work() -> list[tuple[str, int]]:
        started = cycles(instance, dg.DagsterRunStatus.STARTED)
        return [found for record in started if (found := _working(instance, record))]

    return wait_until(at_work, SECONDS)[0]


def _working(instance: dg.DagsterInstance, record: dg.RunRecord) -> tuple[str, int] | None:
    run_id = record.dagster_run.run_id
    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event is not None]
    pids = [
        int(str(event.engine_event_data.metadata["pid"].value))
        for event in events
        if event.is_engine_event and "pid" in event.engine_event_data.metadata
    ]
    return (run_id, pids[-1]) if pids and any(event.is_step_start for event in events) else None


def kill_family(pid: int) -> None:
    """Kill -9 a process and all under it, as the end of a machine does."""
    with suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
