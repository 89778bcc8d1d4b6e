"""The lake and the broker as they are when asked: from Iceberg's metadata, Kafka's offsets, Dagster's and the alerts' databases.

No data file of a table is opened but those of the newest verdicts, a few kilobytes each. What is not there yet (no lake) is left
out; so is what cannot be asked (no broker), and ``wikistream_source_up`` says so: a figure that stands still would look well.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from typing import Any, Final, NamedTuple

from dagster import DagsterError, DagsterInstance
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from pyiceberg.exceptions import NoSuchTableError
from sqlalchemy.exc import SQLAlchemyError

from wikistream_assets.alerts import Alerts
from wikistream_assets.alerts.watch import lag
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.audit_log import newest_verdicts, stream_name
from wikistream_assets.engine.gate_control import gate_states
from wikistream_assets.exceptions import WikistreamError
from wikistream_assets.instance.cycles import last_cycle
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.rule import Status
from wikistream_assets.quality.shapes import QUARANTINE_BUDGET_DAY, QUARANTINE_BUDGET_RANGE
from wikistream_assets.settings import Settings
from wikistream_assets.streams.registry import ALL_TABLES, STREAMS
from wikistream_assets.supervision.cycle_loop import Ended
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS

_log: Final = logging.getLogger(__name__)

_CANNOT_BE_ASKED: Final = (WikistreamError, NoSuchTableError, OSError, sqlite3.Error, SQLAlchemyError, DagsterError)


class Family(NamedTuple):
    """One metric.

    Attributes:
        kind: gauge or counter; a counter's samples end in ``_total``.
        labels: in the order in which ``add_metric`` takes them.
    """

    kind: str
    labels: tuple[str, ...]
    text: str


FAMILIES: Final[Mapping[str, Family]] = {
    "wikistream_source_up": Family(
        "gauge", ("source",), "whether lake, kafka, dagster and alerts could be asked, 0 or 1"
    ),
    "wikistream_kafka_lag_offsets": Family(
        "gauge",
        ("topic", "partition"),
        "end of the partition minus Bronze's position; transaction markers count, so an idle topic may show one or a few",
    ),
    "wikistream_table_rows": Family("gauge", ("table",), "rows of the table"),
    "wikistream_table_files": Family("gauge", ("table",), "data files of the table"),
    "wikistream_table_size_bytes": Family("gauge", ("table",), "size of the table's data files"),
    "wikistream_table_snapshots": Family("gauge", ("table",), "snapshots that the table keeps"),
    "wikistream_table_snapshot_timestamp_seconds": Family("gauge", ("table",), "commit time of the newest snapshot"),
    "wikistream_bronze_records": Family("counter", ("stream",), "Kafka records consumed since the lake was made"),
    "wikistream_bronze_rows": Family("counter", ("stream",), "events written to the raw table since then"),
    "wikistream_bronze_dead_letters": Family("counter", ("stream",), "dead letters written to the lake since then"),
    "wikistream_bronze_duplicates": Family("counter", ("stream",), "redelivered events since then, not written again"),
    "wikistream_gate_blocked": Family("gauge", ("stream", "layer"), "whether the layer's gate is closed, 0 or 1"),
    "wikistream_gate_pass_ratio": Family(
        "gauge", ("stream", "layer"), "share of the checks that did not block at the layer's newest audit, 0 to 1"
    ),
    "wikistream_gate_audit_timestamp_seconds": Family("gauge", ("stream", "layer"), "when the layer was last audited"),
    "wikistream_check_status": Family("gauge", ("table", "check", "status"), "1 for the newest verdict of the check"),
    "wikistream_check_failed_records": Family(
        "gauge", ("table", "check"), "rows that broke the rule at the newest audit"
    ),
    "wikistream_check_duration_seconds": Family("gauge", ("table", "check"), "how long the check took"),
    "wikistream_quarantine_ratio": Family(
        "gauge",
        ("stream", "span"),
        "share of the rows that went to quarantine, 0 to 1: of the newest range (with the rows before it that a share needs),"
        " and of its worst day",
    ),
    "wikistream_quarantine_rule_rows": Family(
        "gauge", ("stream", "rule"), "rows of the newest range that broke the row rule and went to quarantine"
    ),
    "wikistream_cycle_success": Family("gauge", (), "whether the newest cycle that has ended passed, 0 or 1"),
    "wikistream_cycle_duration_seconds": Family("gauge", (), "how long it took"),
    "wikistream_cycle_end_timestamp_seconds": Family("gauge", (), "when it ended"),
    "wikistream_alerts_open": Family("gauge", ("kind", "severity"), "alerts that are open"),
    "wikistream_alerts_waiting": Family("gauge", ("channel",), "notices in the outbox"),
}

Figures = dict[str, list[tuple[tuple[str, ...], float]]]
"""Samples by family: values of the labels, and the figure."""


class LakeMetrics:
    """Collects everything anew each time the registry is asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verdicts: tuple[int, list[dict[str, Any]]] | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    @cached_property
    def _dagster(self) -> DagsterInstance:
        return dagster_instance(self._settings)

    def collect(self) -> Iterator[Metric]:
        """The families, each with its samples of this moment."""
        figures: Figures = {name: [] for name in FAMILIES}
        # opened once, and by those who need it: there a failure is told
        lake = cache(lambda: local_lake(self._settings))
        sources: dict[str, Callable[[], Figures]] = {"alerts": self._alerts}
        if self._settings.catalog_db.exists():
            sources |= {"lake": lambda: self._lake(lake()), "kafka": lambda: self._kafka(lake())}
        if self._settings.dagster_home.exists():
            sources["dagster"] = self._cycle
        for source, ask in sources.items():
            try:
                found, up = ask(), 1.0
            except _CANNOT_BE_ASKED as error:
                _log.warning("%s cannot be asked: %s", source, error)
                found, up = {}, 0.0
            figures |= found
            figures["wikistream_source_up"].append(((source,), up))
        for name, (kind, labels, text) in FAMILIES.items():
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
            for values, figure in figures[name]:
                family.add_metric(values, figure)
            yield family

    def _kafka(self, lake: Lakehouse) -> Figures:
        broker = Broker(self._settings.bootstrap_servers)
        behind = [found for stream in STREAMS.values() for found in lag(broker, lake, stream).items()]
        return {
            "wikistream_kafka_lag_offsets": [
                ((topic, str(number)), float(count))
                for topic, partitions in behind
                for number, count in partitions.items()
            ]
        }

    def _lake(self, lake: Lakehouse) -> Figures:
        figures: Figures = {name: [] for name in FAMILIES if name.startswith("wikistream_table_")}
        for spec in ALL_TABLES:
            table = lake.table(spec)
            snapshot = table.current_snapshot()
            summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
            for name, figure in {
                "rows": float(summary.get("total-records", 0)),
                "files": float(summary.get("total-data-files", 0)),
                "size_bytes": float(summary.get("total-files-size", 0)),
                "snapshots": float(len(table.metadata.snapshots)),
                "snapshot_timestamp_seconds": snapshot.timestamp_ms / 1000 if snapshot else 0.0,
            }.items():
                figures[f"wikistream_table_{name}"].append(((spec.identifier,), figure))
        for stream in STREAMS.values():
            newest = lake.state(stream.raw).newest_position()
            totals: dict[str, int] = newest.counts["total"] if newest and newest.counts else {}
            for name, total in totals.items():
                figures.setdefault(f"wikistream_bronze_{name}", []).append(((stream.name,), float(total)))
        return figures | self._gates(lake)

    def _gates(self, lake: Lakehouse) -> Figures:
        verdicts = self._newest_verdicts(lake)
        by_gate: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in verdicts:
            by_gate.setdefault((stream_name(row), row["layer"]), []).append(row)
        passed = {
            gate: sum(not Status(row["status"]).blocks for row in rows) / len(rows) for gate, rows in by_gate.items()
        }
        checks = [((row["table_name"], row["check_name"]), row) for row in verdicts]
        return {
            "wikistream_gate_blocked": [
                ((state.stream.name, state.layer), float(state.blocked)) for state in gate_states(lake)
            ],
            "wikistream_gate_pass_ratio": list(passed.items()),
            "wikistream_gate_audit_timestamp_seconds": [
                (gate, rows[0]["run_timestamp"].timestamp()) for gate, rows in by_gate.items()
            ],
            "wikistream_check_status": [((*labels, row["status"]), 1.0) for labels, row in checks],
            "wikistream_check_failed_records": [(labels, float(row["records_failed"])) for labels, row in checks],
            "wikistream_check_duration_seconds": [(labels, row["check_duration_ms"] / 1000) for labels, row in checks],
            **_quarantine(verdicts),
        }

    def _newest_verdicts(self, lake: Lakehouse) -> list[dict[str, Any]]:
        head = lake.state(QUALITY_RESULTS).head()
        if head is None:
            return []
        if self._verdicts is None or self._verdicts[0] != head.snapshot_id:
            self._verdicts = head.snapshot_id, newest_verdicts(lake)
        return self._verdicts[1]

    def _cycle(self) -> Figures:
        last = last_cycle(self._dagster)
        if last is None:
            return {}
        figures: Figures = {
            "wikistream_cycle_success": [((), float(last.ended is Ended.PASSED))],
            "wikistream_cycle_end_timestamp_seconds": [((), last.at.timestamp())],
        }
        if last.seconds is not None:
            figures["wikistream_cycle_duration_seconds"] = [((), last.seconds)]
        return figures

    def _alerts(self) -> Figures:
        alerts = Alerts(self._settings)
        opened: dict[tuple[str, ...], float] = {}
        for alert in alerts.open_alerts():
            labels = (alert.notice.kind, alert.notice.severity)
            opened[labels] = opened.get(labels, 0.0) + 1
        waiting = alerts.waiting()
        return {
            "wikistream_alerts_open": list(opened.items()),
            "wikistream_alerts_waiting": [((name,), float(waiting.get(name, 0))) for name in alerts.channels],
        }


def _quarantine(verdicts: Iterable[Mapping[str, Any]]) -> Figures:
    """What the newest verdicts on the budgets say; no share of too few rows to judge."""
    spans = {QUARANTINE_BUDGET_RANGE: "range", QUARANTINE_BUDGET_DAY: "day"}
    figures: Figures = {"wikistream_quarantine_ratio": [], "wikistream_quarantine_rule_rows": []}
    for row in (row for row in verdicts if row["check_name"] in spans):
        stream, span = stream_name(row), spans[row["check_name"]]
        if row["metric_value"] is not None:
            figures["wikistream_quarantine_ratio"].append(((stream, span), 1 - row["metric_value"]))
        rules = json.loads(row["evidence"])["rules"] if span == "range" else {}
        figures["wikistream_quarantine_rule_rows"] += [((stream, rule), float(rows)) for rule, rows in rules.items()]
    return figures
