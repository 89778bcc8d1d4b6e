"""Rules of the Gold gates: are the aggregates possible, consistent with each other, and the sum of what Silver holds?

Gold is computed, not received, so every rule speaks of every row: one impossible figure is one too many.
"""

from typing import Final

from producer.wikis import REGIONS
from wikistream_assets.quality.criteria import DEFAULT_CRITERIA, Criteria, Risk
from wikistream_assets.quality.rule import Dimension, Rule
from wikistream_assets.quality.shapes import UPSTREAM_GATES_PASSED, computed, every, not_null, sql_list, unique

PARITY_SILVER_GOLD: Final = "parity_silver_gold"
PARITY_HOURLY_DAILY: Final = "parity_hourly_daily"

ENTITY_TYPES: Final = ("page", "user", "domain")
RISK_LEVELS: Final = ("HIGH", "MEDIUM", "LOW")
SCORED_USER_KINDS: Final = ("registered", "temporary", "ip4", "ip6")
TOP_ENTITIES: Final = 100
"""Entities of each type kept per day."""
BURST_EDITS: Final = 5
BURST_EDITORS: Final = 4
TRENDING_RATIO: Final = 3.0

_BURST: Final = ("trend_ratio", "burst_start", "burst_edits", "burst_editors", "burst_expected")

_KEY = "decision: a figure that belongs to nothing cannot be used; the key columns are never null by construction"
_ONE_ROW = (
    "decision: whole partitions are recomputed and overwritten; a second row of a key would count twice in every report"
)
_DEFINITION = "decision: the figure is a definition, it holds for every row"

_UPSTREAM = computed(
    UPSTREAM_GATES_PASSED,
    Dimension.UPSTREAM,
    "The Bronze and Silver gates passed for the data this table was made from.",
    "decision: nothing is published from unaudited data, also when the step is started by hand",
)

# The factors' points are stored as {"<factor>": {"value": .., "points": ..}, ...}.
_POINTS = (
    "aggregate(map_values(from_json(evidence, 'map<string,struct<points:double>>')), 0D,"
    " (total, factor) -> total + factor.points)"
)

HOURLY_STATS_RULES: Final[tuple[Rule, ...]] = (
    _UPSTREAM,
    not_null("stat_date", _KEY),
    not_null("domain", _KEY),
    not_null("total_events", _KEY),
    every(
        "stat_hour_valid",
        Dimension.VALIDITY,
        "stat_hour is 0-23.",
        "stat_hour BETWEEN 0 AND 23",
        "decision: UTC hours of a day",
    ),
    every(
        "region_valid",
        Dimension.VALIDITY,
        f"region is one of {', '.join(REGIONS)}.",
        f"region IN {sql_list(REGIONS)}",
        "decision: the closed set of the followed wikis; it is a partition column",
    ),
    every(
        "language_valid",
        Dimension.VALIDITY,
        "language is an ISO 639 code of two or three letters, or mul.",
        r"language RLIKE '^[a-z]{2,3}$'",
        "decision: it is made from the domain, which every row has; projects of several languages are mul",
    ),
    every(
        "bot_percentage_valid",
        Dimension.VALIDITY,
        "bot_percentage is 0-100.",
        "bot_percentage BETWEEN 0 AND 100",
        "a percentage of a whole",
    ),
    every(
        "bytes_valid",
        Dimension.VALIDITY,
        "bytes_added and bytes_removed are not negative.",
        "bytes_added >= 0 AND bytes_removed >= 0",
        "decision: both are sums of positive sizes, the sign is in the column's name",
    ),
    every(
        "total_events_covers_users",
        Dimension.CONSISTENCY,
        "There are at least as many events as distinct users.",
        "total_events >= unique_users",
        "every user counted made at least one of the events",
        where="total_events IS NOT NULL",
    ),
    every(
        "total_events_covers_pages",
        Dimension.CONSISTENCY,
        "There are at least as many events as distinct pages.",
        "total_events >= unique_pages",
        "every page counted is of at least one of the events",
        where="total_events IS NOT NULL",
    ),
    every(
        "bot_and_human_add_up",
        Dimension.CONSISTENCY,
        "bot_edits + human_edits = total_events.",
        "bot_edits + human_edits = total_events",
        "each event either has the bot flag or not",
        where="total_events IS NOT NULL",
    ),
    every(
        "bot_percentage_consistent",
        Dimension.CONSISTENCY,
        "bot_percentage is 100 * bot_edits / total_events.",
        "abs(bot_percentage - 100 * bot_edits / total_events) <= 0.01",
        _DEFINITION,
        where="total_events > 0 AND bot_percentage BETWEEN 0 AND 100",
    ),
    every(
        "anonymous_within_human",
        Dimension.CONSISTENCY,
        "There are at most as many anonymous edits as human edits.",
        "anonymous_edits BETWEEN 0 AND human_edits",
        "decision: a bot is never anonymous; measured: 0 of 9,261 events by IP users in the captures carry the bot flag",
    ),
    every(
        "type_counts_within_total",
        Dimension.CONSISTENCY,
        "The counts by type add up to at most total_events.",
        "type_edit + type_new + type_categorize + type_log <= total_events",
        "types without a column of their own (external, other) make up the rest",
        where="total_events IS NOT NULL",
    ),
    every(
        "large_changes_within_total",
        Dimension.CONSISTENCY,
        "There are at most as many large deletions and additions as events.",
        "large_deletions >= 0 AND large_additions >= 0 AND large_deletions + large_additions <= total_events",
        "each large change is one of the events",
        where="total_events IS NOT NULL",
    ),
    unique("key_unique", ("stat_date", "stat_hour", "domain"), _ONE_ROW),
    computed(
        PARITY_SILVER_GOLD,
        Dimension.CONSISTENCY,
        "total_events of every hour = Silver rows of that hour.",
        "decision: no event is lost or doubled between the layers",
    ),
)


def _total_edits_valid(risk: Risk) -> Rule:
    return every(
        "total_edits_valid",
        Dimension.VALIDITY,
        "Only users with enough edits on the day (criteria: risk) are scored; their large deletions, domains and hours fit into"
        " these edits.",
        f"total_edits >= {risk.min_edits} AND large_deletions BETWEEN 0 AND total_edits"
        " AND domains_edited BETWEEN 1 AND total_edits AND edits_per_hour_avg BETWEEN total_edits / 24 AND total_edits",
        "decision: fewer edits say nothing about a habit",
    )


def _risk_level_consistent(risk: Risk) -> Rule:
    return every(
        "risk_level_consistent",
        Dimension.CONSISTENCY,
        "risk_level follows from risk_score and the bounds of the levels (criteria: risk).",
        f"risk_level = CASE WHEN risk_score >= {risk.high_from} THEN 'HIGH' WHEN risk_score >= {risk.medium_from} THEN 'MEDIUM'"
        " ELSE 'LOW' END",
        "decision: level and alert are derived from the one score, never computed a second time from parts of it",
        where=f"risk_score BETWEEN 0 AND 100 AND risk_level IN {sql_list(RISK_LEVELS)}",
    )


def risk_scores_rules_of(criteria: Criteria) -> tuple[Rule, ...]:
    """Those of ``RISK_SCORES_RULES`` whose bounds are criteria."""
    return (_total_edits_valid(criteria.risk), _risk_level_consistent(criteria.risk))


RISK_SCORES_RULES: Final[tuple[Rule, ...]] = (
    _UPSTREAM,
    not_null("stat_date", _KEY),
    not_null("entity_id", _KEY),
    every(
        "entity_type_valid",
        Dimension.VALIDITY,
        f"entity_type is one of {', '.join(SCORED_USER_KINDS)}.",
        f"entity_type IN {sql_list(SCORED_USER_KINDS)}",
        "decision: bots are not scored, their edits are announced and supervised",
    ),
    every(
        "ip_users_pseudonymised",
        Dimension.VALIDITY,
        "IP users appear as ip-<keyed hash> only.",
        "entity_id LIKE 'ip-%'",
        "decision: an IP address is personal data and does not leave Silver",
        where="entity_type IN ('ip4', 'ip6') AND entity_id IS NOT NULL",
    ),
    _total_edits_valid(DEFAULT_CRITERIA.risk),
    every(
        "risk_score_valid",
        Dimension.VALIDITY,
        "risk_score is 0-100.",
        "risk_score BETWEEN 0 AND 100",
        "the factors' points add up to at most 100, whatever the criteria",
    ),
    every(
        "risk_level_valid",
        Dimension.VALIDITY,
        f"risk_level is one of {', '.join(RISK_LEVELS)}.",
        f"risk_level IN {sql_list(RISK_LEVELS)}",
        "the closed set of the contract",
    ),
    _risk_level_consistent(DEFAULT_CRITERIA.risk),
    every(
        "alert_consistent",
        Dimension.CONSISTENCY,
        "alert_triggered is true exactly when risk_level is HIGH.",
        "alert_triggered = (risk_level = 'HIGH')",
        "decision: level and alert are derived from the one score, never computed a second time from parts of it",
        where=f"risk_level IN {sql_list(RISK_LEVELS)}",
    ),
    every(
        "evidence_adds_up",
        Dimension.CONSISTENCY,
        "evidence is JSON and its factors' points add up to risk_score.",
        f"abs({_POINTS} - risk_score) <= 0.01",
        "decision: a score that cannot be explained point by point is not shown to anyone",
        where="risk_score IS NOT NULL",
    ),
    unique("key_unique", ("stat_date", "entity_id"), _ONE_ROW),
)

ENTITY_TRENDS_RULES: Final[tuple[Rule, ...]] = (
    _UPSTREAM,
    not_null("stat_date", _KEY),
    not_null("entity_id", _KEY),
    every(
        "entity_type_valid",
        Dimension.VALIDITY,
        f"entity_type is one of {', '.join(ENTITY_TYPES)}.",
        f"entity_type IN {sql_list(ENTITY_TYPES)}",
        "the closed set of the contract",
    ),
    every(
        "rank_valid",
        Dimension.VALIDITY,
        f"rank is 1-{TOP_ENTITIES}, or more for a page that trends.",
        f"rank >= 1 AND (rank <= {TOP_ENTITIES} OR trend_rank IS NOT NULL)",
        f"the table keeps the top {TOP_ENTITIES} of each type and day, and the pages that trend",
    ),
    every(
        "velocity_valid",
        Dimension.CONSISTENCY,
        "edits_per_hour lies between edits / 24 and edits.",
        "edits >= 1 AND edits_per_hour BETWEEN edits / 24 AND edits",
        "an entity with edits was active in 1 to 24 hours of the day",
    ),
    every(
        "burst_complete",
        Dimension.CONSISTENCY,
        "Only pages have a burst, and a burst has all its figures.",
        f"({' AND '.join(f'{column} IS NULL' for column in _BURST)})"
        f" OR (entity_type = 'page' AND {' AND '.join(f'{column} IS NOT NULL' for column in _BURST)})",
        "decision: a person is no crowd, and a wiki's own ups and downs are its daily rhythm",
    ),
    every(
        "burst_valid",
        Dimension.VALIDITY,
        f"A burst lies on its day, has at least {BURST_EDITS} of the day's edits by at least {BURST_EDITORS} people, and at least"
        " one edit was to be expected.",
        f"trend_ratio IS NULL OR (CAST(date_from_unix_date(CAST(floor(unix_seconds(burst_start) / 86400) AS INT))"
        f" AS STRING) = stat_date AND burst_edits BETWEEN {BURST_EDITS} AND edits"
        f" AND burst_editors BETWEEN {BURST_EDITORS} AND burst_edits AND burst_expected >= 1)",
        "decision: one person's edits are no burst, however many; measured on the captures, see docs/adr/0017",
    ),
    every(
        "trend_ratio_valid",
        Dimension.CONSISTENCY,
        "trend_ratio is burst_edits / burst_expected.",
        "trend_ratio IS NULL OR abs(trend_ratio * burst_expected - burst_edits) <= 1e-6",
        _DEFINITION,
    ),
    every(
        "trend_rank_valid",
        Dimension.CONSISTENCY,
        f"trend_rank is 1-{TOP_ENTITIES} and given only from a trend_ratio of {TRENDING_RATIO:g} on.",
        f"trend_rank IS NULL OR (trend_rank BETWEEN 1 AND {TOP_ENTITIES} AND trend_ratio >= {TRENDING_RATIO})",
        "decision: a page that is busy as always does not trend; measured on the captures, see docs/adr/0017",
    ),
    unique("key_unique", ("stat_date", "entity_type", "entity_id"), _ONE_ROW),
    unique(
        "rank_unique",
        ("stat_date", "entity_type", "rank"),
        "decision: ties are broken by the entity's name, so each rank is given once",
    ),
)

_PERCENTAGES = (
    "bot_percentage",
    "anonymous_percentage",
    "registered_user_percentage",
    "large_deletion_rate",
    *(f"{region}_percentage" for region in REGIONS),
)

DAILY_ANALYTICS_SUMMARY_RULES: Final[tuple[Rule, ...]] = (
    _UPSTREAM,
    not_null("summary_date", _KEY),
    not_null("total_events", _KEY),
    every(
        "percentages_valid",
        Dimension.VALIDITY,
        "Every percentage is 0-100.",
        " AND ".join(f"{column} BETWEEN 0 AND 100" for column in _PERCENTAGES),
        "percentages of a whole",
    ),
    every(
        "health_score_valid",
        Dimension.VALIDITY,
        "platform_health_score is 0-100.",
        "platform_health_score BETWEEN 0 AND 100",
        "its parts' points add up to 100, whatever the criteria",
    ),
    every(
        "risk_figures_valid",
        Dimension.VALIDITY,
        "The mean risk score is at most the highest, and both are 0-100.",
        "platform_avg_risk_score >= 0 AND platform_max_risk_score <= 100 AND platform_avg_risk_score <= platform_max_risk_score",
        "a mean lies within its values",
    ),
    every(
        "user_percentages_add_up",
        Dimension.CONSISTENCY,
        "The shares of bots, anonymous and registered users add up to 100 % (within 0.01).",
        "abs(bot_percentage + anonymous_percentage + registered_user_percentage - 100) <= 0.01",
        "decision: every user is exactly one kind; 0.01 covers rounding",
    ),
    every(
        "region_percentages_add_up",
        Dimension.CONSISTENCY,
        "The regions' shares add up to 100 % (within 0.01).",
        f"abs({' + '.join(f'{region}_percentage' for region in REGIONS)} - 100) <= 0.01",
        "decision: every domain is in exactly one region; 0.01 covers rounding",
    ),
    every(
        "total_events_covers_users",
        Dimension.CONSISTENCY,
        "There are at least as many events as distinct users.",
        "total_events >= unique_users",
        "every user counted made at least one of the events",
        where="total_events IS NOT NULL",
    ),
    every(
        "total_events_covers_pages",
        Dimension.CONSISTENCY,
        "There are at least as many events as distinct pages.",
        "total_events >= unique_pages_edited",
        "every page counted is of at least one of the events",
        where="total_events IS NOT NULL",
    ),
    every(
        "net_content_consistent",
        Dimension.CONSISTENCY,
        "net_content_change is total_bytes_added - total_bytes_removed.",
        "net_content_change = total_bytes_added - total_bytes_removed",
        _DEFINITION,
    ),
    every(
        "peak_hour_consistent",
        Dimension.CONSISTENCY,
        "The busiest hour holds at least the mean of the active hours and at most the whole day.",
        "peak_hour_events BETWEEN avg_events_per_hour AND total_events",
        "a maximum lies between the mean and the sum",
        where="total_events IS NOT NULL",
    ),
    every(
        "alerts_consistent",
        Dimension.CONSISTENCY,
        "As many alerts as users with risk_level HIGH.",
        "total_alerts_triggered = high_risk_user_count",
        "decision: an alert is a HIGH score, nothing else",
    ),
    unique("key_unique", ("summary_date",), _ONE_ROW),
    computed(
        PARITY_HOURLY_DAILY,
        Dimension.CONSISTENCY,
        "total_events of every day = the sum of its hours in hourly_stats, and the risk counts = the rows of risk_scores.",
        "decision: the Gold tables tell one story; they are published together",
    ),
)
