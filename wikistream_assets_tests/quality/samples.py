"""Clean rows of every gated table, made from invented events."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests import oracle

Row = dict[str, Any]

EVENTS = 900
START = datetime(2026, 3, 1, 10, 0, tzinfo=UTC)
KEY = b"a key of the tests"

_DOMAINS = ("en.wikipedia.org", "de.wikipedia.org", "ja.wikipedia.org", "he.wikipedia.org", "commons.wikimedia.org")
_USERS = ("Ada", "Grace", "Edsger", "Barbara", "192.0.2.17", "2001:DB8:0:0:0:0:0:42", "~2026-12345-67")
_TYPES = ("edit", "edit", "edit", "edit", "edit", "edit", "edit", "new", "categorize", "log")


def clean_rows(spec: TableSpec) -> list[Row]:
    """New copies of the clean rows of a gated table."""
    return [dict(row) for row in _clean()[spec.identifier]]


def with_bronze_lineage(rows: Sequence[Row], source_mode: str = "live") -> list[Row]:
    """The rows as Kafka and the stream would have delivered them: in order, two seconds after the change."""
    return [
        {
            **row,
            "kafka_topic": "raw-events",
            "kafka_partition": number % 3,
            "kafka_offset": number // 3,
            "kafka_timestamp": row["event_timestamp"] + timedelta(seconds=1),
            "producer_ingested_at": row["event_timestamp"] + timedelta(seconds=1),
            "bronze_processed_at": row["event_timestamp"] + timedelta(seconds=2),
            "source_mode": source_mode,
        }
        for number, row in enumerate(rows)
    ]


def gold_rows(silver: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of the four Gold tables, by the table's identifier."""
    gold = oracle.Gold(silver, KEY)
    return {
        "gold.hourly_stats": gold.hourly_stats(),
        "gold.risk_scores": [{**row, "evidence": json.dumps(row["evidence"])} for row in gold.risk_scores()],
        "gold.entity_trends": gold.entity_trends(),
        "gold.daily_analytics_summary": gold.daily_analytics_summary(),
    }


@cache
def _clean() -> dict[str, list[Row]]:
    bronze = with_bronze_lineage(oracle.bronze_rows((json.dumps(_event(number)) for number in range(EVENTS)), None))
    silver = oracle.silver_rows(bronze)
    return {"bronze.raw_events": bronze, "silver.cleaned_events": silver, **gold_rows(silver)}


def _event(number: int) -> dict[str, Any]:
    """An invented event; the first is an edit of 10 bytes by a registered user of the English Wikipedia."""
    event_type = _TYPES[number % len(_TYPES)]
    happened = START + timedelta(seconds=20 * number)
    domain = _DOMAINS[number % len(_DOMAINS)]
    event: dict[str, Any] = {
        "$schema": "/mediawiki/recentchange/1.0.0",
        "meta": {"id": f"00000000-0000-4000-8000-{number:012d}", "domain": domain, "dt": happened.isoformat()},
        "id": 1000 + number,
        "type": event_type,
        "namespace": 14 if event_type == "categorize" else 0,
        "title": f"Page {number % 60}",
        "timestamp": int(happened.timestamp()),
        "user": "Sortbot" if number % 4 == 3 else _USERS[number % len(_USERS)],
        "bot": number % 4 == 3,
        "comment": "",
        "server_name": domain,
        "wiki": domain.split(".")[0] + "wiki",
    }
    if event_type in ("edit", "new"):
        new = 2000 + 10 * (number % 7 + 1)
        event["length"] = {"new": new} if event_type == "new" else {"old": 2000, "new": new}
        event["revision"] = {"new": 5000 + number, "old": None if event_type == "new" else 4000 + number}
    return event
