"""The whole main job once, on this machine: broker, source, producer, then the Dagster job ``cycle``."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from producer.launch import Source, run_producer, source_from
from wikistream_assets.alerts import Alerts
from wikistream_assets.components.events import failure_text
from wikistream_assets.definitions import defs
from wikistream_assets.embedded import services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.source import demo_source
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.machine.limits import ensure_open_files
from wikistream_assets.readers.edits.summary import LakeSummary, summarize
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS

LIVE_EVENTS: Final = 1_000
_MOST_CYCLES: Final = 3
"""A range that failed in an earlier run is audited first and alone; what is newer needs its own cycle."""

Report = Callable[[str], None]


@dataclass
class DemoResult:
    """How a demo ended.

    Attributes:
        ingested: the producer's counters of this run, e.g. received, accepted, filtered, canary, dead_lettered.
        seconds: stage -> seconds.
        succeeded: all Dagster runs ended well: every gate passed.
        waiting: layers that still have something to publish.
    """

    source: Source
    ingested: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    succeeded: bool = False
    waiting: tuple[str, ...] = ()
    summary: LakeSummary | None = None

    @property
    def ok(self) -> bool:
        """Every gate passed, nothing waits, and the layers add up."""
        return self.succeeded and not self.waiting and self.summary is not None and self.summary.adds_up


def run_demo(source: str, events: int | None, settings: Settings, report: Report) -> DemoResult:
    """Read ``source`` into Kafka and run cycles until all of it is published or a gate blocks.

    Args:
        source: synthetic, live, or the path of a capture.
        events: of ``synthetic`` how many are made (None: ``DEMO_EVENTS``), of others after how many the reading ends (None:
            ``LIVE_EVENTS``, or all of a capture).
        report: called with a line at each step.

    Raises:
        WikistreamError, ProducerError: one line that says what is wrong and how to fix it.
    """
    if events is not None and events < 1:
        raise ConfigurationError(f"EVENTS must be 1 or more, not {events}")
    synthetic = source == "synthetic"
    found = demo_source(settings, events) if synthetic else source_from(source, settings)
    result = DemoResult(found)
    for remark in found.remarks:
        report(remark)
    limit = None if synthetic else events or (LIVE_EVENTS if found.mode == "live" else None)
    ensure_open_files()
    open_home(settings)
    with ExitStack() as at_hand:
        with _stage(result, "broker", report):
            at_hand.enter_context(services.broker_at_hand(settings, report))
        with _stage(result, "ingest", report):
            result.ingested = run_producer(found, settings, max_events=limit)
        with _stage(result, "Spark start", report):
            local_session(settings)
        _run_cycles(result, settings, report)
        Alerts(settings).deliver()  # of a pipeline without a daemon no one else sends what waits
    lake = local_lake(settings)
    result.waiting = waiting_layers(lake.look(), EDITS)
    result.summary = summarize(lake)
    return result


def _run_cycles(result: DemoResult, settings: Settings, report: Report) -> None:
    job = defs().resolve_job_def("cycle")
    with dagster_instance(settings) as instance:
        for _ in range(_MOST_CYCLES):
            report("cycle: drain, Bronze gate, Silver and its gate, Gold and its gate")
            run = job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            for step in instance.get_run_step_stats(run.run_id):
                if step.start_time and step.end_time:
                    spent = step.end_time - step.start_time
                    result.seconds[step.step_key] = result.seconds.get(step.step_key, 0.0) + spent
            for failure in failed_steps(run):
                report(failure)
            result.succeeded = run.success
            if not run.success or not waiting_layers(local_lake(settings).look(), EDITS):
                return


def failed_steps(run: dg.ExecuteInProcessResult) -> Iterator[str]:
    """One line for each step that failed: which, and why."""
    for event in run.filter_events(lambda event: event.is_step_failure):
        error = event.step_failure_data.error
        cause = error.cause if error and error.cause else error
        said = failure_text(event) or (cause.message.strip() if cause else "unknown cause")
        yield f"{event.step_key} failed: {said}"


@contextmanager
def _stage(result: DemoResult, name: str, report: Report) -> Iterator[None]:
    report(f"{name} ..")
    started = time.perf_counter()
    yield
    result.seconds[name] = time.perf_counter() - started
