"""Rows on the bounds of rules and one step beyond them, so that a bound moved either way is noticed.

All rows on a bound are in one set, which must pass every rule. ``mutations`` breaks each rule once; the other sides of rules with
several bounds are here, in one set too, in which each rule must find its own rows and no others.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from producer.wikis import REGIONS
from wikistream_assets_tests.quality.samples import Row

Edge = Callable[[list[Row]], None]
"""Changes a table's clean rows in place."""

SHARE_EDGES: Final[dict[str, dict[str, int]]] = {
    # rule -> rows that break it, with which its share is exactly the threshold
    "bronze.raw_events": {
        "title_completeness": 45,  # of 900
        "user_completeness": 45,
        "wiki_completeness": 45,
        "event_timeliness": 44,  # of the 880 live ones
    },
    "silver.cleaned_events": {
        "length_delta_completeness": 7,  # of the 700 with sizes
        "is_anonymous_accuracy": 8,  # of the 800 that are left
    },
}


def _bronze_shares(rows: list[Row]) -> None:
    for row in rows[100:145]:
        row |= {"title": None, "user": None, "wiki": None}
    for number, row in enumerate(rows[200:220]):
        row["source_mode"] = "replay" if number % 2 else "synthetic"
    for number, row in enumerate(rows[220:]):
        late = timedelta(seconds=180, microseconds=1 if number < 44 else 0)
        row["bronze_processed_at"] = row["event_timestamp"] + late


def _bronze_values(rows: list[Row]) -> None:
    types = ("edit", "new", "log", "categorize", "external", "0", "142", "9" * 30)
    schemas = ("mediawiki/recentchange/1", "mediawiki/recentchange/2", "/mediawiki/recentchange/1.0.1", None)
    for row, event_type in zip(rows, types, strict=False):
        row["event_type"] = event_type
    for row, schema in zip(rows, schemas, strict=False):
        row["schema_version"] = schema
    rows[0] |= _at(datetime(2026, 3, 1, tzinfo=UTC))
    rows[1] |= _at(datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC))
    rows[2]["producer_ingested_at"] = rows[2]["event_timestamp"] - timedelta(seconds=60)


def _at(moment: datetime) -> Row:
    return {
        "event_timestamp": moment,
        "event_date": moment.date().isoformat(),
        "event_hour": moment.hour,
        "producer_ingested_at": moment + timedelta(seconds=1),
        "bronze_processed_at": moment + timedelta(seconds=2),
    }


def _sizes(delta: int, **flags: bool) -> Row:
    sizes = {"event_type": "edit", "length_old": 100_000, "length_new": 100_000 + delta, "length_delta": delta}
    return {**sizes, "is_large_deletion": False, "is_large_addition": False, **flags}


def _silver_values(rows: list[Row]) -> None:
    for row, event_type in zip(rows, ("edit", "new", "log", "categorize", "external", "other"), strict=False):
        row |= {"event_type": event_type, "length_old": 0, "length_new": 1, "length_delta": 1}
    for row, delta in zip(rows[6:], (-5000, -5001, 50000, 50001), strict=False):
        row |= _sizes(delta, is_large_deletion=delta == -5001, is_large_addition=delta == 50001)
    for row, (domain, region) in zip(rows[10:], _A_DOMAIN_OF_EACH_REGION.items(), strict=False):
        row |= {"domain": domain, "region": region}
    rows[15] |= {"title": "first and last: \u0020 \u007e \u00a0 \u00ad", "user_normalized": "Zoë~"}


def _silver_shares(rows: list[Row]) -> None:
    """Leave 700 rows with sizes, 7 of them unknown, and 100 without, 8 of all with a wrong flag."""
    keep = {True: count(), False: count()}
    limits = {True: 700, False: 100}
    rows[:] = [row for row in rows if next(keep[_sized(row)]) < limits[_sized(row)]]
    for row in [row for row in rows[50:] if _sized(row)][:7]:
        row |= {"length_delta": None, "is_large_deletion": False, "is_large_addition": False}
    for row in [row for row in rows[50:] if row["user_kind"] == "registered"][:8]:
        row |= {"user_kind": "temporary", "is_anonymous": True}


def _sized(row: Row) -> bool:
    return row["event_type"] in ("edit", "new")


_A_DOMAIN_OF_EACH_REGION: Final = {
    "en.wikipedia.org": "americas",
    "ja.wikipedia.org": "asia_pacific",
    "de.wikipedia.org": "europe",
    "he.wikipedia.org": "middle_east",
    "www.wikidata.org": "other",
}


def _more(key: str, *rows_of_columns: Mapping[str, Any]) -> Edge:
    """Add a copy of the first row for each set of columns, with keys that no other row has."""

    def edge(rows: list[Row]) -> None:
        first = dict(rows[0])
        for columns in rows_of_columns:
            rows.append({**first, key: f"edge {len(rows)}", **columns})

    return edge


_TYPES_OF_100: Final = {"type_edit": 97, "type_new": 1, "type_categorize": 1, "type_log": 1}
_HOUR: Final = {"total_events": 100, "bot_edits": 50, "human_edits": 50, "anonymous_edits": 0, **_TYPES_OF_100}
_HOURS: Final = (
    {"stat_hour": 0, **_HOUR, "bot_percentage": 50.0},
    {"stat_hour": 23, **_HOUR, "bot_percentage": 50.0},
    *({"region": region, **_HOUR, "bot_percentage": 50.0} for region in REGIONS),
    {**_HOUR, "bot_edits": 0, "human_edits": 100, "bot_percentage": 0.0, "anonymous_edits": 100},
    {**_HOUR, "bot_edits": 100, "human_edits": 0, "bot_percentage": 100.0, "anonymous_edits": 0},
    {**_HOUR, "bot_percentage": 50.0099, "bytes_added": 0, "bytes_removed": 0},
    {**_HOUR, "bot_percentage": 49.9901, "unique_users": 100, "unique_pages": 100},
    {**_HOUR, "bot_percentage": 50.0, "large_deletions": 40, "large_additions": 60},
)


def _scored(score: float, level: str, kind: str = "registered", **columns: Any) -> Row:
    return {
        "risk_score": score,
        "risk_level": level,
        "alert_triggered": level == "HIGH",
        "evidence": f'{{"edits_per_hour": {{"value": 1, "points": {score}}}}}',
        "entity_type": kind,
        **columns,
    }


_SCORES: Final = (
    _scored(0.0, "LOW", total_edits=5, edits_per_hour_avg=5.0, large_deletions=5, domains_edited=5),
    _scored(39.99, "LOW", "temporary", total_edits=24, edits_per_hour_avg=1.0, large_deletions=0, domains_edited=1),
    _scored(40.0, "MEDIUM", "ip4", entity_id="ip-"),
    _scored(69.99, "MEDIUM", "ip6", entity_id="ip-0"),
    _scored(70.0, "HIGH"),
    _scored(100.0, "HIGH"),
    _scored(50.0, "MEDIUM", evidence='{"edits_per_hour": {"value": 1, "points": 50.0099}}'),
    _scored(50.0, "MEDIUM", evidence='{"edits_per_hour": {"value": 1, "points": 49.9901}}'),
)


def _burst(edits: int = 5, editors: int = 4, expected: float = 1.0, hour: int = 0, **columns: Any) -> Row:
    """Columns of a page with a burst on a date that no clean row has."""
    return {
        "stat_date": "2026-03-02",
        "edits": 5,
        "edits_per_hour": 5.0,
        "burst_start": datetime(2026, 3, 2, hour, tzinfo=UTC),
        "burst_edits": edits,
        "burst_editors": editors,
        "burst_expected": expected,
        "trend_ratio": edits / expected,
        **columns,
    }


_TRENDS: Final = (
    {"rank": 1, "edits": 1, "edits_per_hour": 1.0, "stat_date": "2026-03-02"},
    {"rank": 100, "edits": 24, "edits_per_hour": 1.0, "stat_date": "2026-03-02"},
    _burst(rank=2, trend_rank=1),
    _burst(editors=5, hour=23, rank=3, trend_rank=100),
    _burst(expected=5 / 3, trend_ratio=3.0, rank=101, trend_rank=50),
    _burst(expected=2.0, trend_ratio=2.5 + 4e-7, rank=4),
    *({"rank": 5, "entity_type": each, "stat_date": "2026-03-02"} for each in ("page", "user", "domain")),
)

_NOBODY: Final = {"bot_percentage": 0.0, "anonymous_percentage": 0.0, "registered_user_percentage": 0.0}
_NOWHERE: Final = {f"{region}_percentage": 0.0 for region in REGIONS}
_DAYS: Final = (
    *({**_NOBODY, kind: 100.0} for kind in _NOBODY),
    *({**_NOWHERE, region: 100.0} for region in _NOWHERE),
    {**_NOBODY, "bot_percentage": 99.9901, **_NOWHERE, "europe_percentage": 99.9901},
    {"large_deletion_rate": 100.0, "platform_health_score": 0.0},
    {"large_deletion_rate": 0.0, "platform_health_score": 100.0},
    {"platform_avg_risk_score": 0.0, "platform_max_risk_score": 0.0},
    {"platform_avg_risk_score": 100.0, "platform_max_risk_score": 100.0},
    {
        "total_events": 60,
        "unique_users": 60,
        "unique_pages_edited": 60,
        "peak_hour_events": 60,
        "avg_events_per_hour": 2.5,
    },
    {"total_events": 60, "peak_hour_events": 20, "avg_events_per_hour": 20.0},
)

EDGES: Final[dict[str, tuple[Edge, ...]]] = {
    "bronze.raw_events": (_bronze_values, _bronze_shares),
    "silver.cleaned_events": (_silver_values, _silver_shares),
    "gold.hourly_stats": (_more("domain", *_HOURS),),
    "gold.risk_scores": (_more("entity_id", *_SCORES),),
    "gold.entity_trends": (_more("entity_id", *_TRENDS),),
    "gold.daily_analytics_summary": (_more("summary_date", *_DAYS),),
}

BEYOND: Final[dict[str, dict[str, tuple[Mapping[str, Any], ...]]]] = {
    # table -> rule -> columns of rows that break this rule and no other
    "silver.cleaned_events": {
        "size_flags_consistent": (
            _sizes(-5000, is_large_deletion=True),
            _sizes(-5001),
            _sizes(50000, is_large_addition=True),
            _sizes(50001),
        ),
    },
    "gold.hourly_stats": {
        "stat_hour_valid": ({"stat_hour": -1},),
        "bot_percentage_valid": ({"bot_percentage": -0.001},),
        "bytes_valid": ({"bytes_added": -1},),
        "bot_percentage_consistent": ({**_HOUR, "bot_percentage": 49.989},),
        "anonymous_within_human": ({"anonymous_edits": -1},),
        "large_changes_within_total": (
            {"large_deletions": -1},
            {"large_additions": -1},
            {**_HOUR, "bot_percentage": 50.0, "large_deletions": 41, "large_additions": 60},
        ),
    },
    "gold.risk_scores": {
        "total_edits_valid": (
            {"large_deletions": -1},
            {"total_edits": 5, "edits_per_hour_avg": 5.0, "domains_edited": 1, "large_deletions": 6},
            {"domains_edited": 0},
            {"total_edits": 5, "edits_per_hour_avg": 5.0, "domains_edited": 6},
            {"total_edits": 24, "edits_per_hour_avg": 0.999},
            {"total_edits": 24, "edits_per_hour_avg": 24.001},
        ),
        "risk_score_valid": (_scored(-0.01, "LOW"),),
        "risk_level_consistent": (
            _scored(39.99, "MEDIUM"),
            _scored(40.0, "LOW"),
            _scored(69.99, "HIGH"),
            _scored(70.0, "MEDIUM"),
        ),
        "evidence_adds_up": (_scored(50.0, "MEDIUM", evidence='{"edits_per_hour": {"value": 1, "points": 49.989}}'),),
    },
    "gold.entity_trends": {
        "rank_valid": ({"rank": 101},),
        "burst_complete": (_burst(rank=1, trend_ratio=None), _burst(rank=1, entity_type="user")),
        "burst_valid": (
            _burst(rank=2, burst_start=datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)),
            _burst(rank=3, burst_start=datetime(2026, 3, 3, tzinfo=UTC)),
            _burst(rank=4, edits=4),
            _burst(rank=5, edits=6),
            _burst(rank=6, editors=3),
            _burst(rank=7, editors=6),
            _burst(rank=8, expected=0.999),
        ),
        "trend_ratio_valid": (
            _burst(rank=9, expected=2.0, trend_ratio=2.5 + 6e-7),
            _burst(rank=10, expected=2.0, trend_ratio=2.5 - 6e-7),
        ),
        "trend_rank_valid": (
            _burst(rank=11, trend_rank=0),
            _burst(rank=12, trend_rank=101),
            _burst(rank=13, expected=5 / 2.999, trend_rank=1),
        ),
    },
    "gold.daily_analytics_summary": {
        "percentages_valid": (
            {"large_deletion_rate": -0.001},
            *({**_NOBODY, "bot_percentage": 100.0, kind: -0.001} for kind in _NOBODY if kind != "bot_percentage"),
            *({**_NOBODY, kind: 100.001} for kind in _NOBODY),
            *(
                {**_NOWHERE, "other_percentage": 100.0, region: -0.001}
                for region in _NOWHERE
                if region != "other_percentage"
            ),
            *({**_NOWHERE, region: 100.001} for region in _NOWHERE),
        ),
        "health_score_valid": ({"platform_health_score": -0.001},),
        "risk_figures_valid": (
            {"platform_avg_risk_score": -0.001},
            {"platform_avg_risk_score": 50.0, "platform_max_risk_score": 100.001},
        ),
        "user_percentages_add_up": ({**_NOBODY, "bot_percentage": 99.989},),
        "region_percentages_add_up": ({**_NOWHERE, "europe_percentage": 99.989},),
        "peak_hour_consistent": ({"peak_hour_events": 179},),
    },
}


def plant(table: str, rows: list[Row]) -> None:
    """Add the rows of ``BEYOND``, with keys that no other row has."""
    key = {
        "silver.cleaned_events": "event_id",
        "gold.hourly_stats": "domain",
        "gold.risk_scores": "entity_id",
        "gold.entity_trends": "entity_id",
    }
    for planted in BEYOND[table].values():
        _more(key.get(table, "summary_date"), *planted)(rows)
