"""Contracts of the Gold layer: aggregates recomputed for the days that new Silver rows touch."""

from typing import Final

from wikistream_assets.quality.criteria import Criteria
from wikistream_assets.streams.edits.rules.gold import (
    DAILY_ANALYTICS_SUMMARY_RULES,
    ENTITY_TRENDS_RULES,
    HOURLY_STATS_RULES,
    RISK_SCORES_RULES,
    risk_scores_rules_of,
)
from wikistream_assets.tables.spec import TableSpec, columns

SCHEMA_VERSION: Final = "2"
"""Version of the Gold contracts; it grows by one with each change of them."""


def schema_version(criteria: Criteria) -> str:
    """``schema_version`` of a Gold row: the contract's version and, if ``criteria`` are not the defaults, their fingerprint."""
    return f"{SCHEMA_VERSION}+{criteria.fingerprint}" if criteria.fingerprint else SCHEMA_VERSION


_SILVER = ("silver.cleaned_events",)
_VERSION = "version of this table's contract, with +<fingerprint> if criteria.toml changes any"

HOURLY_STATS = TableSpec(
    namespace="gold",
    name="hourly_stats",
    description="One row per hour and domain: volume, contributors, bytes, and kinds of change.",
    columns=columns(
        ("stat_date", "string", "UTC date, yyyy-MM-dd; partition"),
        ("stat_hour", "int", "UTC hour, 0-23"),
        ("domain", "string", "the wiki's domain"),
        ("region", "string", "the domain's region; partition"),
        ("language", "string", "the domain's language, ISO 639 code or mul; null in rows of version 1"),
        ("total_events", "long", "events of any type"),
        ("unique_users", "long", "distinct user_normalized"),
        ("unique_pages", "long", "distinct title"),
        ("bytes_added", "long", "sum of positive length_delta, bytes"),
        ("bytes_removed", "long", "sum of negative length_delta as a positive number, bytes"),
        ("avg_edit_size", "double", "mean of |length_delta| where known, bytes; null where none is known"),
        ("bot_edits", "long", "events with the bot flag"),
        ("human_edits", "long", "events without the bot flag"),
        ("bot_percentage", "double", "100 * bot_edits / total_events"),
        ("anonymous_edits", "long", "events by temporary accounts and IP addresses"),
        ("type_edit", "long", "events of type edit"),
        ("type_new", "long", "events of type new"),
        ("type_categorize", "long", "events of type categorize"),
        ("type_log", "long", "events of type log"),
        ("large_deletions", "long", "events that remove more than 5000 bytes (criteria: sizes)"),
        ("large_additions", "long", "events that add more than 50000 bytes (criteria: sizes)"),
        ("is_final", "boolean", "the hour is over and the allowed lateness has passed"),
        ("gold_processed_at", "timestamp", "when the row was computed", "incidental"),
        (
            "schema_version",
            "string",
            _VERSION,
        ),
    ),
    partition_by=("stat_date", "region"),
    key=("stat_date", "stat_hour", "domain"),
    upstream=_SILVER,
    rules=HOURLY_STATS_RULES,
)

RISK_SCORES = TableSpec(
    namespace="gold",
    name="risk_scores",
    description="One row per day and user with at least 5 events (criteria: risk), none with the bot flag: risk points and why.",
    columns=columns(
        ("stat_date", "string", "UTC date, yyyy-MM-dd; partition"),
        ("entity_id", "string", "user name; IP users as ip-<keyed hash>", "personal", "pseudonym"),
        ("entity_type", "string", "the user's user_kind"),
        ("total_edits", "long", "events of any type by the user on that day, over all domains"),
        ("edits_per_hour_avg", "double", "total_edits / hours of the day in which the user was active"),
        ("large_deletions", "long", "events that remove more than 5000 bytes (criteria: sizes)"),
        ("domains_edited", "long", "distinct domains"),
        ("risk_score", "double", "0-100: sum of the points in evidence"),
        ("risk_level", "string", "HIGH 70-100, MEDIUM 40-69, LOW 0-39 (criteria: risk)"),
        ("evidence", "string", "JSON: each factor's figure and points"),
        ("alert_triggered", "boolean", "risk_level is HIGH"),
        ("is_final", "boolean", "the day is over and the allowed lateness has passed"),
        ("gold_processed_at", "timestamp", "when the row was computed", "incidental"),
        (
            "schema_version",
            "string",
            _VERSION,
        ),
    ),
    partition_by=("stat_date",),
    key=("stat_date", "entity_id"),
    upstream=_SILVER,
    rules=RISK_SCORES_RULES,
    rules_of=risk_scores_rules_of,
)

ENTITY_TRENDS = TableSpec(
    namespace="gold",
    name="entity_trends",
    description="The top 100 pages, users and domains of each day with their velocity, and the pages that trend.",
    columns=columns(
        ("stat_date", "string", "UTC date, yyyy-MM-dd; partition"),
        ("entity_type", "string", "page, user or domain"),
        (
            "entity_id",
            "string",
            "domain:title, user name, or domain; IP addresses in them as ip-<keyed hash>",
            "personal",
            "pseudonym",
        ),
        (
            "rank",
            "int",
            "1 = most edits of its type on that day; ties in order of the unhashed name; above 100 only for pages that trend",
        ),
        ("edits", "long", "events of any type on that day, bots included"),
        ("edits_per_hour", "double", "edits / hours of the day in which the entity was active"),
        (
            "trend_ratio",
            "double",
            "burst_edits / burst_expected; null for pages without a burst, users and domains. In rows of version 1: edits in the"
            " busiest hour / mean edits per hour of the day",
        ),
        (
            "trend_rank",
            "int",
            "1 = highest trend_ratio of the day; only pages with a trend_ratio of at least 3, at most 100; all others null",
        ),
        (
            "burst_start",
            "timestamp",
            "start of the page's sharpest hour: at least 5 edits of an article (types edit and new) by at least 4 people, no bots"
            "; null if it has none",
        ),
        ("burst_edits", "long", "edits in that hour, without bots"),
        ("burst_editors", "long", "people who made them"),
        (
            "burst_expected",
            "double",
            "edits expected in that hour: 1, and the page's usual edits (this day, 7 before) times the wiki's rise",
        ),
        ("is_final", "boolean", "the day is over and the allowed lateness has passed"),
        ("gold_processed_at", "timestamp", "when the row was computed", "incidental"),
        (
            "schema_version",
            "string",
            _VERSION,
        ),
    ),
    partition_by=("stat_date",),
    key=("stat_date", "entity_type", "entity_id"),
    upstream=_SILVER,
    rules=ENTITY_TRENDS_RULES,
)

DAILY_ANALYTICS_SUMMARY = TableSpec(
    namespace="gold",
    name="daily_analytics_summary",
    description="One row per day: volume, user mix, content, risk, regions, and the platform health score.",
    columns=columns(
        ("summary_date", "string", "UTC date, yyyy-MM-dd; partition"),
        ("total_events", "long", "events of any type"),
        ("unique_users", "long", "distinct user_normalized"),
        ("active_domains", "long", "distinct domains"),
        ("unique_pages_edited", "long", "distinct (domain, title)"),
        ("bot_percentage", "double", "100 * events by bots / total_events"),
        ("anonymous_percentage", "double", "100 * events by temporary accounts and IP addresses / total_events"),
        ("registered_user_percentage", "double", "100 * events by registered, non-bot users / total_events"),
        ("total_bytes_added", "long", "sum of positive length_delta, bytes"),
        ("total_bytes_removed", "long", "sum of negative length_delta as a positive number, bytes"),
        ("net_content_change", "long", "total_bytes_added - total_bytes_removed"),
        ("avg_edit_size_bytes", "double", "mean of |length_delta| where known, bytes; null where none is known"),
        ("new_pages_created", "long", "events of type new"),
        ("large_deletions_count", "long", "events that remove more than 5000 bytes (criteria: sizes)"),
        ("large_deletion_rate", "double", "100 * large_deletions_count / total_events"),
        ("high_risk_user_count", "long", "scored users with risk_level HIGH"),
        ("medium_risk_user_count", "long", "scored users with risk_level MEDIUM"),
        ("low_risk_user_count", "long", "scored users with risk_level LOW"),
        ("platform_avg_risk_score", "double", "mean risk_score of scored users; 0 if none is scored"),
        ("platform_max_risk_score", "double", "highest risk_score of scored users; 0 if none is scored"),
        ("total_alerts_triggered", "long", "scored users with alert_triggered"),
        ("europe_percentage", "double", "100 * events of the region / total_events"),
        ("americas_percentage", "double", "100 * events of the region / total_events"),
        ("asia_pacific_percentage", "double", "100 * events of the region / total_events"),
        ("middle_east_percentage", "double", "100 * events of the region / total_events"),
        ("other_percentage", "double", "100 * events outside the four regions / total_events"),
        ("peak_hour_events", "long", "events in the busiest hour"),
        ("avg_events_per_hour", "double", "total_events / hours of the day with at least one event"),
        (
            "platform_health_score",
            "double",
            "0-100: low risk 40, registered 30, content growth 20, few deletions 10 (criteria: health)",
        ),
        ("is_final", "boolean", "the day is over and the allowed lateness has passed"),
        ("gold_processed_at", "timestamp", "when the row was computed", "incidental"),
        (
            "schema_version",
            "string",
            _VERSION,
        ),
    ),
    partition_by=("summary_date",),
    key=("summary_date",),
    upstream=("gold.hourly_stats", "gold.risk_scores", *_SILVER),
    rules=DAILY_ANALYTICS_SUMMARY_RULES,
)
