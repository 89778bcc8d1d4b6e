"""Puts a producer together from settings; what ``python -m producer`` and tests run."""

import logging
import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version

from producer import __version__
from producer.contract import Contract
from producer.envelope import Envelope, SourceMode
from producer.exceptions import ProducerConfigError
from producer.failpoints import Failpoint
from producer.metrics import Metrics, served
from producer.pipeline import Limits, Pipeline, Report, Stop
from producer.reader import Policy, Reader
from producer.settings import ProducerSettings
from producer.sink import TransactionalSink
from producer.transport import is_loopback

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What one producer is to do.

    Attributes:
        url: the EventStreams endpoint.
        identity: of the source; key of the cursor.
        mode: kind of the source.
        until_end: status 204 ends the run well.
        max_events: the run ends after so many received events.
        since / until: which part of the stream's history; see ``reader.Policy``.
    """

    url: str
    identity: str
    mode: SourceMode
    until_end: bool = False
    max_events: int | None = None
    since: datetime | None = None
    until: datetime | None = None


def user_agent(settings: ProducerSettings, url: str) -> str:
    """The User-Agent in the form that Wikimedia's policy asks for: name/version (contact) library/version.

    Raises:
        ProducerConfigError: the server is not on this machine, and there is no contact.
    """
    if not is_loopback(url):
        settings.require_contact()
    contact = re.sub(r"([()\\])", r"\\\1", settings.contact or "local")  # it stands in a comment
    return f"WikiStream/{__version__} ({contact}) requests-sse/{version('requests-sse')}"


def policy(settings: ProducerSettings, *, until_end: bool) -> Policy:
    """How to connect, from the settings."""
    return Policy(
        attempts=settings.producer_connect_attempts,
        backoff_seconds=settings.producer_backoff_seconds,
        backoff_max_seconds=settings.producer_backoff_max_seconds,
        read_timeout_seconds=settings.producer_read_timeout_seconds,
        gap_tolerance_seconds=settings.producer_gap_tolerance_seconds,
        until_end=until_end,
    )


def run(job: Job, settings: ProducerSettings, stop: Stop) -> Report:
    """Run one producer to its end.

    Raises:
        ProducerError: see ``exceptions``; what is committed stays committed.
    """
    agent = user_agent(settings, job.url)
    metrics = Metrics()
    with ExitStack() as stack:
        try:
            stack.enter_context(served(metrics.registry, settings.producer_metrics_port))
        except OSError as error:
            raise ProducerConfigError(
                f"port {settings.producer_metrics_port} cannot be used for metrics ({error.strerror}): "
                "set WIKISTREAM_PRODUCER_METRICS_PORT to another one, or to 0"
            ) from None
        sink = TransactionalSink(settings.bootstrap_servers, job.identity, Failpoint(settings.failpoint))
        report = _pipeline(job, settings, stop, metrics, sink, agent).run()
        sink.close()
    if report.outcome == "end" and not report.run.received:
        _LOGGER.info("this source has been read to its end before: nothing new")
    return report


def _pipeline(
    job: Job, settings: ProducerSettings, stop: Stop, metrics: Metrics, sink: TransactionalSink, agent: str
) -> Pipeline:
    """Take up where the last producer of this source was."""
    cursor = sink.cursor()
    if cursor.position:
        _LOGGER.info("going on after %s (%d events received before)", cursor.position, cursor.counters.received)
    return Pipeline(
        reader=Reader(
            job.url,
            agent,
            cursor.position,
            replace(policy(settings, until_end=job.until_end), since=job.since, until=job.until),
        ),
        contract=Contract(settings.followed, settings.max_event_bytes),
        envelope=Envelope(settings.env, job.identity, job.mode),
        sink=sink,
        cursor=cursor,
        metrics=metrics,
        limits=Limits(settings.producer_batch_events, settings.producer_batch_seconds, job.max_events),
        stop=stop,
    )
