"""What there is to tell: the kinds of alerts, what each means, and what a person does about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wikistream_assets.quality.rule import Severity
from wikistream_assets.settings import AlertKind


class KindInfo(NamedTuple):
    """What a kind is about.

    Attributes:
        subject: what the subject names.
        means: what has happened.
        remedy: what to do.
        once: it is a piece of news and no state: told once for each subject, never repeated, never cleared.
    """

    subject: str
    means: str
    remedy: str
    once: bool = False


KINDS: Final[Mapping[AlertKind, KindInfo]] = {
    AlertKind.GATE_FAILED: KindInfo(
        "table.check",
        "a check keeps its range from being published; nothing downstream moves",
        "`wikistream gate status`, then fix the cause, or `wikistream gate accept` or `reject`",
    ),
    AlertKind.CHECK_FAILED: KindInfo(
        "table.check",
        "a check that does not block has failed: the data was published",
        "look at the check in the UI; `dq_audit.failing_rows` holds the keys",
    ),
    AlertKind.RUN_FAILED: KindInfo(
        "job, or partition of it",
        "a run of the job failed",
        "open the linked run, fix the cause, rerun the job: a rerun is always safe",
    ),
    AlertKind.RUN_TIMEOUT: KindInfo(
        "job, or partition of it",
        "a step of a run exceeded its time limit and was ended; the run is retried up to three times",
        "the message names the step and its limit",
    ),
    AlertKind.FRESHNESS: KindInfo(
        "table",
        "the table is older than its freshness policy allows; only a WARNING if there is nothing new for it",
        "`wikistream health`, then the newest runs in the UI",
    ),
    AlertKind.STREAM_RESTARTED: KindInfo(
        "stream",
        "the stream died or hung, and was restarted",
        "nothing if the alert has cleared; otherwise `wikistream status`",
    ),
    AlertKind.STREAM_GIVEN_UP: KindInfo(
        "stream",
        "the stream did not recover after several restarts",
        "its log names the cause; fix it, then `make down` and `make up`",
    ),
    AlertKind.SOURCE_SILENT: KindInfo(
        "stream",
        "the producer has received nothing for WIKISTREAM_SOURCE_SILENT_SECONDS, not even a canary",
        "`wikistream status`: is the producer running, does the source answer? A capture that has ended is silent too",
    ),
    AlertKind.SOURCE_GAP: KindInfo(
        "time",
        "the source no longer had the events after the producer's position: events are missing",
        "`wikistream backfill --since` fetches what the source still has; a capture supplies the rest",
        once=True,
    ),
    AlertKind.LAG: KindInfo(
        "topic",
        "in two consecutive samples, half a minute apart, more records than WIKISTREAM_ALERT_LAG_RECORDS wait in Kafka for"
        " Bronze",
        "`wikistream status`: is the stream running? If so, it catches up by itself",
    ),
    AlertKind.LATENCY: KindInfo(
        "table",
        "for five minutes, one event in twenty has reached Bronze later than WIKISTREAM_ALERT_LATENCY_SECONDS; a"
        " capture's events are always old",
        "`wikistream health`: if no records wait, the source sends late; if some do, Bronze is catching up after an outage, or"
        " the machine is too busy",
    ),
    AlertKind.DLQ_RATE: KindInfo(
        "topic",
        "for two minutes in a row, more dead letters arrived than WIKISTREAM_ALERT_DLQ_PER_MINUTE",
        "`wikistream dlq list` names the reasons, `wikistream dlq show` the originals",
    ),
    AlertKind.PRODUCER_CPU: KindInfo(
        "program",
        "the producer has used more than 80 % of a core in two consecutive periods of WIKISTREAM_ALERT_PRODUCER_CPU_SECONDS",
        "is there that much to read, as after an outage? If not, its log shows what it keeps doing",
    ),
    AlertKind.HIGH_RISK_USER: KindInfo(
        "date/user", "a user's risk level on that day is HIGH", "read `evidence` in gold.risk_scores", once=True
    ),
    AlertKind.TEST: KindInfo("channel", "`wikistream alerts test` was called", "nothing", once=True),
}


@dataclass(frozen=True)
class Alert:
    """Something a person should know.

    Attributes:
        kind: what happened; one of ``AlertKind``, also by its name.
        subject: what it happened to: a table, check, job, program or topic. Kind and subject together identify an alert.
        message: one sentence.
        details: figures and failing keys; JSON-serialisable. IP users only as keyed hash.
        run_id: the Dagster run in which it happened, if there is one.
        severity: ERROR wants a person now, WARNING some time.
    """

    kind: AlertKind | str
    subject: str
    message: str
    details: Mapping[str, object] = field(default_factory=dict)
    run_id: str | None = None
    severity: Severity | str = Severity.ERROR

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", AlertKind(self.kind))
        object.__setattr__(self, "severity", Severity(self.severity))
