"""For each rule that is measured on rows: a fault that breaks this rule and no other."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from wikistream_assets_tests.quality.samples import Row

Mutation = Callable[[list[Row]], list[Row]]
"""Changes a table's clean rows, in place or not, and returns the rows to use."""


def change(rows: int = 1, of: Callable[[Row], bool] = lambda row: True, **columns: Any) -> Mutation:
    """Set the columns in the first ``rows`` rows that ``of`` accepts; a callable value is given the row."""

    def mutate(clean: list[Row]) -> list[Row]:
        chosen = [row for row in clean if of(row)][:rows]
        assert len(chosen) == rows, "the clean rows hold too few rows to mutate"
        for row in chosen:
            row |= {name: value(row) if callable(value) else value for name, value in columns.items()}
        return clean

    return mutate


def repeat(**columns: Any) -> Mutation:
    """Add the first row once more, with the columns set."""
    return lambda clean: [*clean, {**clean[0], **columns}]


def plus(column: str, amount: Any) -> Callable[[Row], Any]:
    return lambda row: row[column] + amount


def registered(row: Row) -> bool:
    return bool(row["user_kind"] == "registered")


def sized(row: Row) -> bool:
    return row["length_delta"] is not None


def low(row: Row) -> bool:
    return bool(row["risk_level"] == "LOW")


def page(row: Row) -> bool:
    return bool(row["entity_type"] == "page")


BURST = {
    "burst_start": datetime(2026, 3, 1, 11, 15, tzinfo=UTC),
    "burst_edits": 5,
    "burst_editors": 4,
    "burst_expected": 2.0,
    "trend_ratio": 2.5,
}
"""A burst of a page of the clean rows, too weak to trend: it breaks no rule."""

MUTATIONS: dict[str, dict[str, Mutation]] = {
    "bronze.raw_events": {
        "event_id_not_null": change(event_id=None),
        "event_type_not_null": change(event_type=None),
        "domain_not_null": change(domain=None),
        "event_timestamp_not_null": change(event_timestamp=None),
        "payload_not_null": change(payload=None),
        "title_completeness": change(rows=46, title=None),
        "user_completeness": change(rows=46, user=None),
        "wiki_completeness": change(rows=46, wiki=None),
        "lineage_complete": change(kafka_timestamp=None),
        "event_type_valid": change(event_type="protect"),
        "event_hour_valid": change(event_hour=24),
        "event_date_valid": change(event_date="2026-02-28"),
        "schema_version_known": change(schema_version="/mediawiki/recentchange/3.0.0"),
        "source_mode_valid": change(source_mode="dream"),
        "kafka_position_unique": repeat(event_id="another"),
        "event_id_unique": repeat(kafka_offset=1_000_000),
        "event_timeliness": change(
            rows=46, bronze_processed_at=plus("event_timestamp", timedelta(seconds=180, microseconds=1))
        ),
        "no_future_timestamps": change(
            producer_ingested_at=plus("event_timestamp", -timedelta(seconds=60, microseconds=1))
        ),
    },
    "silver.cleaned_events": {
        "event_id_not_null": change(event_id=None),
        "domain_not_null": change(domain=None),
        "event_timestamp_not_null": change(event_timestamp=None),
        "region_not_null": change(region=None),
        "language_not_null": change(language=None),
        "length_delta_completeness": change(rows=8, of=sized, length_delta=None),
        "region_valid": change(region="atlantis"),
        "event_type_valid": change(event_type="142"),
        "user_kind_valid": change(of=registered, user_kind="alien"),
        "event_date_valid": change(event_date="2026-02-28"),
        "no_control_characters": change(title="Page\x1f"),
        "is_anonymous_accuracy": change(rows=10, of=registered, is_anonymous=True, user_kind="temporary"),
        "region_mapping": change(region="middle_east"),
        "is_valid_consistent": change(is_valid=False),
        "is_anonymous_consistent": change(of=registered, is_anonymous=True),
        "is_bot_consistent": change(of=registered, is_bot=True),
        "length_delta_consistent": change(of=sized, length_new=plus("length_new", 1)),
        "size_flags_consistent": change(is_large_deletion=True),
        "event_id_unique": repeat(),
    },
    "gold.hourly_stats": {
        "stat_date_not_null": change(stat_date=None),
        "domain_not_null": change(domain=None),
        "total_events_not_null": change(total_events=None),
        "stat_hour_valid": change(stat_hour=24),
        "region_valid": change(region="atlantis"),
        "language_valid": change(language=None),
        "bot_percentage_valid": change(bot_percentage=100.001),
        "bytes_valid": change(bytes_removed=-1),
        "total_events_covers_users": change(unique_users=plus("total_events", 1)),
        "total_events_covers_pages": change(unique_pages=plus("total_events", 1)),
        "bot_and_human_add_up": change(human_edits=plus("human_edits", 1)),
        "bot_percentage_consistent": change(bot_percentage=plus("bot_percentage", 0.011)),
        "anonymous_within_human": change(anonymous_edits=plus("human_edits", 1)),
        "type_counts_within_total": change(type_log=plus("total_events", 1)),
        "large_changes_within_total": change(large_additions=plus("total_events", 1)),
        "key_unique": repeat(),
    },
    "gold.risk_scores": {
        "stat_date_not_null": change(stat_date=None),
        "entity_id_not_null": change(entity_id=None),
        "entity_type_valid": change(of=lambda row: row["entity_type"] == "registered", entity_type="bot"),
        "ip_users_pseudonymised": change(of=lambda row: row["entity_type"] == "ip4", entity_id="192.0.2.17"),
        "total_edits_valid": change(total_edits=4, edits_per_hour_avg=2.0),
        "risk_score_valid": change(risk_score=100.01, evidence='{"speed": {"value": 1, "points": 100.01}}'),
        "risk_level_valid": change(of=low, risk_level="EXTREME"),
        "risk_level_consistent": change(of=low, risk_level="MEDIUM"),
        "alert_consistent": change(of=low, alert_triggered=True),
        "evidence_adds_up": change(
            of=low, evidence=lambda row: f'{{"speed": {{"value": 1, "points": {row["risk_score"] + 0.011}}}}}'
        ),
        "key_unique": repeat(),
    },
    "gold.entity_trends": {
        "stat_date_not_null": change(stat_date=None),
        "entity_id_not_null": change(entity_id=None),
        "entity_type_valid": change(entity_type="planet"),
        "rank_valid": change(rank=0),
        "velocity_valid": change(edits_per_hour=lambda row: row["edits"] + 1.0),
        "burst_complete": change(of=page, burst_editors=4),
        "burst_valid": change(of=page, **{**BURST, "burst_editors": 3}),
        "trend_ratio_valid": change(of=page, **{**BURST, "trend_ratio": 6.0}),
        "trend_rank_valid": change(of=page, **{**BURST, "trend_rank": 1}),
        "key_unique": repeat(rank=99),
        "rank_unique": repeat(entity_id="another"),
    },
    "gold.daily_analytics_summary": {
        "summary_date_not_null": change(summary_date=None),
        "total_events_not_null": change(total_events=None),
        "percentages_valid": change(large_deletion_rate=100.001),
        "health_score_valid": change(platform_health_score=100.001),
        "risk_figures_valid": change(platform_avg_risk_score=plus("platform_max_risk_score", 0.001)),
        "user_percentages_add_up": change(bot_percentage=lambda row: row["bot_percentage"] - 0.011),
        "region_percentages_add_up": change(other_percentage=lambda row: row["other_percentage"] - 0.011),
        "total_events_covers_users": change(unique_users=plus("total_events", 1)),
        "total_events_covers_pages": change(unique_pages_edited=plus("total_events", 1)),
        "net_content_consistent": change(net_content_change=plus("net_content_change", 1)),
        "peak_hour_consistent": change(peak_hour_events=plus("total_events", 1)),
        "alerts_consistent": change(total_alerts_triggered=plus("high_risk_user_count", 1)),
        "key_unique": repeat(),
    },
}
