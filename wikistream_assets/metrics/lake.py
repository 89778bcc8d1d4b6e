"""The lake and the broker as they are when asked: from Iceberg's metadata, Kafka's offsets, Dagster's and the alerts' databases.

No data file of a table is opened but those of the newest verdicts, a few kilobytes each. What is not there yet (no lake) is left
out; so is what cannot be asked (no broker), and ``wikistream_source_up`` says so: a figure that stands still would look well.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
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
from wikistream_assets.engine.audit_log import newest_verdicts
from wikistream_assets.engine.gate_control import gate_states
from wikistream_assets.exceptions import WikistreamError
from wikistream_assets.instance.cycles import last_cycle
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.rule import Status
from wikistream_assets.quality.shapes import QUARANTINE_BUDGET_DAY, QUARANTINE_BUDGET_RANGE
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
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
    "wikistream_bronze_records": Family("counter", (), "Kafka records consumed since the lake was made"),
    "wikistream_bronze_rows": Family("counter", (), "events written to bronze.raw_events since then"),
    "wikistream_bronze_dead_letters": Family("counter", (), "dead letters written to bronze.dead_letter since then"),
    "wikistream_bronze_duplicates": Family("counter", (), "redelivered events since then, not written again"),
    "wikistream_gate_blocked": Family("gauge", ("layer",), "whether the layer's gate is closed, 0 or 1"),
    "wikistream_gate_pass_ratio": Family(
        "gauge", ("layer",), "share of the checks that did not block at the layer's newest audit, 0 to 1"
    ),
    "wikistream_gate_audit_timestamp_seconds": Family("gauge", ("layer",), "when the layer was last audited"),
    "wikistream_check_status": Family("gauge", ("table", "check", "status"), "1 for the newest verdict of the check"),
    "wikistream_check_failed_records": Family(
        "gauge", ("table", "check"), "rows that broke the rule at the newest audit"
    ),
    "wikistream_check_duration_seconds": Family("gauge", ("table", "check"), "how long the check took"),
    "wikistream_quarantine_ratio": Family(
        "gauge",
        ("span",),
        "share of the rows that went to quarantine, 0 to 1: of the newest range (with the rows before it that a share needs),"
        " and of its worst day",
    ),
    "wikistream_quarantine_rule_rows": Family(
        "gauge", ("rule",), "rows of the newest range that broke the row rule and went to quarantine"
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
        behind = lag(Broker(self._settings.bootstrap_servers), lake)
        figures: Figures = {"wikistream_kafka_lag_offsets": []}
        for topic, partitions in behind.items():
            for number, count in partitions.items():
                figures["wikistream_kafka_lag_offsets"].append(((topic, str(number)), float(count)))
        return figures

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
        newest = lake.state(RAW_EVENTS).newest_position()
        totals: dict[str, int] = newest.counts["total"] if newest and newest.counts else {}
        figures |= {f"wikistream_bronze_{name}": [((), float(total))] for name, total in totals.items()}
        return figures | self._gates(lake)

    def _gates(self, lake: Lakehouse) -> Figures:
        verdicts = self._newest_verdicts(lake)
        by_layer: dict[str, list[dict[str, Any]]] = {}
        for row in verdicts:
            by_layer.setdefault(row["layer"], []).append(row)
        passed = {
            layer: sum(not Status(row["status"]).blocks for row in rows) / len(rows) for layer, rows in by_layer.items()
        }
        checks = [((row["table_name"], row["check_name"]), row) for row in verdicts]
        return {
            "wikistream_gate_blocked": [((state.layer,), float(state.blocked)) for state in gate_states(lake)],
            "wikistream_gate_pass_ratio": [((layer,), ratio) for layer, ratio in passed.items()],
            "wikistream_gate_audit_timestamp_seconds": [
                ((layer,), rows[0]["run_timestamp"].timestamp()) for layer, rows in by_layer.items()
            ],
            "wikistream_check_status": [((*labels, row["status"]), 1.0) for labels, row in checks],
            "wikistream_check_failed_records": [(labels, float(row["records_failed"])) for labels, row in checks],
            "wikistream_check_duration_seconds": [(labels, row["check_duration_ms"] / 1000) for labels, row in checks],
            **_quarantine({row["check_name"]: row for row in verdicts}),
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


def _quarantine(verdicts: Mapping[str, Mapping[str, Any]]) -> Figures:
    """What the newest verdicts on the budgets (by check) say; no share of too few rows to judge."""
    spans = {"range": verdicts.get(QUARANTINE_BUDGET_RANGE), "day": verdicts.get(QUARANTINE_BUDGET_DAY)}
    found = {span: row for span, row in spans.items() if row is not None}
    rules = json.loads(found["range"]["evidence"])["rules"] if "range" in found else {}
    return {
        "wikistream_quarantine_ratio": [
            ((span,), 1 - row["metric_value"]) for span, row in found.items() if row["metric_value"] is not None
        ],
        "wikistream_quarantine_rule_rows": [((rule,), float(rows)) for rule, rows in rules.items()],
    }
