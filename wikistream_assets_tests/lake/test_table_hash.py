"""The hash that proves two lakes equal, against the same definition in plain Python over what PyIceberg reads."""

import hashlib
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.table_hash import HASHED_TABLES, hashed_columns, table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DEAD_LETTER,
    GOLD_TABLES,
    HOURLY_STATS,
    RAW_EVENTS,
    RISK_SCORES,
)
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.lake.lakes import AT, add, full_row, publish_gold

pytestmark = pytest.mark.local

EMPTY = "0" * 32
IP_A, IP_B = "ip-0123456789abcdef", "ip-fedcba9876543210"


@pytest.fixture
def lake(settings: Settings) -> Lakehouse:
    return local_lake(settings)


def expected_hash(lake: Lakehouse, spec: TableSpec, left_out: set[str]) -> str:
    """The definition in the module's docstring, done by hand."""
    first = second = 0
    for row in lake.table(spec).scan().to_arrow().to_pylist():
        line = "".join(as_text(row[name], spec in GOLD_TABLES) for name in sorted(row.keys() - left_out))
        digest = hashlib.md5(line.encode(), usedforsecurity=False).digest()
        first += int.from_bytes(digest[8:], "little")
        second += int.from_bytes(digest[:8], "little")
    return f"{first % 2**64:016x}{second % 2**64:016x}"


def as_text(value: Any, is_gold: bool) -> str:
    if value is None:
        return "n"
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, datetime):
        text = str(microseconds(value))
    elif isinstance(value, str) and is_gold:
        text = re.sub("ip-[0-9a-f]{16}", "ip-*", value)
    else:
        text = str(value)
    return f"v{len(text.encode())}:{text}"


def microseconds(value: datetime) -> int:
    return (value - datetime(1970, 1, 1, tzinfo=value.tzinfo)) // timedelta(microseconds=1)


LEFT_OUT = {
    "bronze.raw_events": {
        "kafka_topic",
        "kafka_partition",
        "kafka_offset",
        "kafka_timestamp",
        "producer_ingested_at",
        "bronze_processed_at",
    },
    "bronze.dead_letter": {
        "kafka_topic",
        "kafka_partition",
        "kafka_offset",
        "kafka_timestamp",
        "bronze_processed_at",
        "rejected_at",
        "event_date",
    },
    "silver.cleaned_events": {"bronze_processed_at", "silver_processed_at"},
    "quarantine.cleaned_events": {"bronze_processed_at", "silver_processed_at", "quarantine_processed_at"},
    "gold.hourly_stats": {"gold_processed_at"},
    "gold.risk_scores": {"gold_processed_at"},
    "gold.entity_trends": {"gold_processed_at"},
    "gold.daily_analytics_summary": {"gold_processed_at"},
}


def test_all_tables_but_the_audit_trail_are_hashed() -> None:
    assert {spec.identifier for spec in HASHED_TABLES} == set(LEFT_OUT)
    assert {spec.identifier for spec in ALL_TABLES} - set(LEFT_OUT) == {
        "dq_audit.quality_results",
        "dq_audit.profile_metrics",
        "dq_audit.failing_rows",
        "dq_audit.gate_decisions",
    }


@pytest.mark.parametrize("spec", HASHED_TABLES, ids=lambda spec: spec.identifier)
def test_columns_that_differ_between_two_runs_are_left_out(spec: TableSpec) -> None:
    assert set(hashed_columns(spec.identifier)) == set(spec.column_names) - LEFT_OUT[spec.identifier]


def test_hash_is_as_defined(lake: Lakehouse) -> None:
    assert set(table_hashes(lake).values()) == {EMPTY}
    odd = {"domain": "héllo:9\n", "title": "", "is_bot": False}
    for spec in HASHED_TABLES:
        values = {name: value for name, value in odd.items() if name in spec.column_names}
        rows = [full_row(spec), full_row(spec, **values), {spec.column_names[0]: "x"}]
        if spec is RISK_SCORES:
            rows.append(full_row(spec, entity_id=IP_A, risk_score=1e22, edits_per_hour_avg=1 / 3))
        position = {"silver.cleaned_events": 1} if spec in GOLD_TABLES else None
        add(lake, spec, *rows, position=position)
    assert table_hashes(lake) == {
        spec.identifier: expected_hash(lake, spec, LEFT_OUT[spec.identifier]) for spec in HASHED_TABLES
    }


def hash_of(settings_factory: Any, *snapshots: list[dict[str, Any]], spec: TableSpec = RAW_EVENTS) -> str:
    """The hash of ``spec`` in a new lake that got these snapshots."""
    lake = local_lake(settings_factory())
    for rows in snapshots:
        add(lake, spec, *rows)
    return table_hashes(lake)[spec.identifier]


def raw(event_id: str, **values: Any) -> dict[str, Any]:
    return full_row(RAW_EVENTS, event_id=event_id, **values)


def test_order_and_files_do_not_matter_but_every_row_does(settings_factory: Any) -> None:
    one, two, three = raw("1"), raw("2", event_hour=2), raw("3")
    together = hash_of(settings_factory, [one, two, three])
    assert hash_of(settings_factory, [three], [two, one]) == together
    others = [
        hash_of(settings_factory, [one, two]),
        hash_of(settings_factory, [one, two, three, three]),
        hash_of(settings_factory, [one, two, three, three, three]),
        hash_of(settings_factory, [one, two, raw("3", title="other")]),
        hash_of(settings_factory, [one, two, raw("3", title="")]),
        hash_of(settings_factory, [one, two, raw("3", title=None)]),
        hash_of(settings_factory, [one, two, raw("3", title=None, title_url="aa")]),
        hash_of(settings_factory, [one, two, raw("3", title="aa", title_url=None)]),
        hash_of(settings_factory, [one, two, raw("3", event_timestamp=AT + timedelta(microseconds=1))]),
    ]
    assert len({together, EMPTY, *others}) == len(others) + 2


def test_run_dependent_columns_do_not_matter(settings_factory: Any) -> None:
    later = AT + timedelta(days=1)
    moved = raw("1", kafka_offset=99, kafka_partition=2, bronze_processed_at=later, producer_ingested_at=later)
    assert hash_of(settings_factory, [raw("1")]) == hash_of(settings_factory, [moved])
    letter = full_row(DEAD_LETTER)
    again = letter | {"rejected_at": later, "event_date": "2024-03-02", "kafka_offset": 7}
    assert hash_of(settings_factory, [letter], spec=DEAD_LETTER) == hash_of(settings_factory, [again], spec=DEAD_LETTER)


def test_pseudonyms_of_two_homes_are_equal_in_gold_only(settings_factory: Any) -> None:
    def both(ip: str) -> tuple[str, str]:
        lake = local_lake(settings_factory())
        publish_gold(lake, 1, ip, GOLD_TABLES)
        add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, user_normalized=ip))
        hashes = table_hashes(lake)
        return hashes[RISK_SCORES.identifier], hashes[CLEANED_EVENTS.identifier]

    (gold_a, silver_a), (gold_b, silver_b) = both(IP_A), both(IP_B)
    assert gold_a == gold_b
    assert silver_a != silver_b


def test_order_of_columns_does_not_matter(settings_factory: Any, tmp_path: Path) -> None:
    row = full_row(HOURLY_STATS, domain="d", region="r")
    settings = settings_factory()
    usual = local_lake(settings)
    fields = usual.table(HOURLY_STATS).schema().fields
    catalog = SqlCatalog("wikistream", uri=f"sqlite:///{tmp_path}/other.db", warehouse=f"file://{tmp_path}/other")
    catalog.create_namespace("gold")
    catalog.create_table(HOURLY_STATS.identifier, Schema(*reversed(fields)))
    reversed_lake = Lakehouse(catalog)
    reversed_lake.ensure_tables()
    position = {"silver.cleaned_events": 1}
    for lake in (usual, reversed_lake):
        publish_gold(lake, 1, "d", GOLD_TABLES[1:])
        add(lake, HOURLY_STATS, row, position=position)
    assert table_hashes(usual) == table_hashes(reversed_lake)
    assert table_hashes(usual)[HOURLY_STATS.identifier] != EMPTY
