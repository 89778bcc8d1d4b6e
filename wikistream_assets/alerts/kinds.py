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
        "`wikistream gate status`, then mend the cause, or `wikistream gate accept` or `reject`",
    ),
    AlertKind.CHECK_FAILED: KindInfo(
        "table.check",
        "a check failed that does not block: the data went on",
        "look at the check in the UI; `dq_audit.failing_rows` holds the keys",
    ),
    AlertKind.RUN_FAILED: KindInfo(
        "job, or partition of it",
        "a run of the job broke",
        "open the linked run, mend the cause, start the job again: that is always safe",
    ),
    AlertKind.RUN_TIMEOUT: KindInfo(
        "job, or partition of it",
        "a step of a run took longer than its limit and was ended; the run is started again, three times at most",
        "the message names step and limit",
    ),
    AlertKind.FRESHNESS: KindInfo(
        "table",
        "the table is older than its freshness policy allows; a WARNING where nothing new is to be had for it",
        "`wikistream health`, then the newest runs in the UI",
    ),
    AlertKind.STREAM_RESTARTED: KindInfo(
        "stream",
        "the stream had died or stood still, and was started again",
        "nothing, if it is cleared; else `wikistream status`",
    ),
    AlertKind.STREAM_GIVEN_UP: KindInfo(
        "stream",
        "the stream did not come back after several starts",
        "its log names the cause; mend it, then `make down` and `make up`",
    ),
    AlertKind.SOURCE_SILENT: KindInfo(
        "stream",
        "the producer has received nothing for WIKISTREAM_SOURCE_SILENT_SECONDS, not even a canary",
        "`wikistream status`: does the producer run, does the source answer? A capture that is at its end is silent, too",
    ),
    AlertKind.SOURCE_GAP: KindInfo(
        "time",
        "the source no longer had what came after the producer's place: events were left out",
        "`wikistream backfill --since` brings back what the source still has, a capture the rest",
        once=True,
    ),
    AlertKind.LAG: KindInfo(
        "topic",
        "at two looks in a row, half a minute apart, more records wait in Kafka for Bronze than WIKISTREAM_ALERT_LAG_RECORDS",
        "`wikistream status`: does the stream run? If it does, it catches up by itself",
    ),
    AlertKind.LATENCY: KindInfo(
        "table",
        "for five minutes, one event in twenty has reached Bronze later than WIKISTREAM_ALERT_LATENCY_SECONDS; the events of a"
        " capture are old anyway",
        "`wikistream health`: if nothing waits, the source sends late; if records wait, Bronze catches up after an outage, or the"
        " machine is too busy",
    ),
    AlertKind.DLQ_RATE: KindInfo(
        "topic",
        "more dead letters a minute arrive than WIKISTREAM_ALERT_DLQ_PER_MINUTE",
        "`wikistream dlq list` names the reasons, `wikistream dlq show` the originals",
    ),
    AlertKind.PRODUCER_CPU: KindInfo(
        "program",
        "the producer has used more than 80 % of a processor for WIKISTREAM_ALERT_PRODUCER_CPU_SECONDS, twice in a row",
        "does so much arrive, as after an outage? If not, its log tells what it does over and over",
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
