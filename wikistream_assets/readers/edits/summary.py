"""The figures a person wants after a run: what came in, what became of it, what the gates said, what stands out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import duckdb

from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import open_views, readable_versions
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE, RAW_EVENTS


@dataclass(frozen=True)
class LakeSummary:
    """The lake as it is now.

    Attributes:
        totals: running totals of Bronze: records read from Kafka, rows, dead_letters, duplicates.
        rows: ``namespace.name`` -> rows.
        dead_letters: (reason, number), most frequent first.
        checks: (layer, table, status, number) of the newest verdict of each check.
        breaches: (status, table, check, message) of the newest verdicts that are not PASSED or SKIPPED.
        days: (date, events, health score, peak hour events, high, medium risk users), newest days first.
        risks: (date, entity, score, level, edits, edits per active hour), highest first.
        trending: (date, page, start of the hour, edits in it, people, ratio to what was expected), newest days first.
        busiest_hours: (date, hour, events, users), busiest first.
    """

    totals: dict[str, int]
    rows: dict[str, int]
    dead_letters: Sequence[tuple[str, int]]
    checks: Sequence[tuple[str, str, str, int]]
    breaches: Sequence[tuple[str, str, str, str]]
    days: Sequence[tuple[str, int, float, int, int, int]]
    risks: Sequence[tuple[str, str, float, str, int, float]]
    trending: Sequence[tuple[str, str, datetime, int, int, float]]
    busiest_hours: Sequence[tuple[str, int, int, int]]

    @property
    def adds_up(self) -> bool:
        """Records read = Bronze + dead letters + duplicates, and Bronze = Silver + quarantine."""
        accounted = self.totals["rows"] + self.totals["dead_letters"] + self.totals["duplicates"]
        published = self.rows[CLEANED_EVENTS.identifier] + self.rows[QUARANTINE.identifier]
        return self.totals["records"] == accounted and self.rows[RAW_EVENTS.identifier] == published


_NEWEST_VERDICTS: Final = """
    create temp view newest_verdicts as select * from dq_audit.quality_results
    qualify row_number() over (partition by table_name, check_name order by run_timestamp desc, attempt desc) = 1
"""


def summarize(lake: Lakehouse) -> LakeSummary:
    """Read the summary from the catalog and the small tables; no JVM."""
    counted = lake.state(RAW_EVENTS).newest_position()
    totals = {"records": 0, "rows": 0, "dead_letters": 0, "duplicates": 0}
    if counted and counted.counts:
        totals |= counted.counts["total"]
    with open_views(lake) as connection:
        connection.execute(_NEWEST_VERDICTS)
        return LakeSummary(
            totals=totals,
            rows={name: version.total_records for name, version in readable_versions(lake).items()},
            dead_letters=_rows(
                connection, "select reason, count(*) from bronze.dead_letter group by reason order by 2 desc, 1"
            ),
            checks=_rows(
                connection,
                "select layer, table_name, status, count(*) from newest_verdicts"
                " group by all order by layer, table_name, status",
            ),
            breaches=_rows(
                connection,
                "select status, table_name, check_name, message from newest_verdicts"
                " where status not in ('PASSED', 'SKIPPED') order by status, table_name, check_name",
            ),
            days=_rows(
                connection,
                "select summary_date, total_events, platform_health_score, peak_hour_events, high_risk_user_count,"
                " medium_risk_user_count from gold.daily_analytics_summary order by summary_date desc limit 5",
            ),
            risks=_rows(
                connection,
                "select stat_date, entity_id, risk_score, risk_level, total_edits, edits_per_hour_avg"
                " from gold.risk_scores where risk_score > 0 order by risk_score desc, total_edits desc, entity_id limit 5",
            ),
            trending=_rows(
                connection,
                "select stat_date, entity_id, burst_start, burst_edits, burst_editors, trend_ratio from gold.entity_trends"
                " where trend_rank is not null order by stat_date desc, trend_rank limit 5",
            ),
            busiest_hours=_rows(
                connection,
                "select stat_date, stat_hour, sum(total_events)::bigint, sum(unique_users)::bigint from gold.hourly_stats"
                " group by all order by 3 desc, 1, 2 limit 3",
            ),
        )


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple]:  # type: ignore[type-arg]
    return connection.execute(sql).fetchall()
