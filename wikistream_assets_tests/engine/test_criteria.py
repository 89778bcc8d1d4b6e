"""Criteria that change on a lake in use: what is computed from then on follows them, says so, and passes its gates."""

import json
from collections import Counter, defaultdict

import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.lake.state import CRITERIA_KEY
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings, load_criteria
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.upkeep import backfill
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row, blocking
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = pytest.mark.spark

DAY = "2026-03-01"
CHANGED = """\
[sizes]
large_deletion_bytes = 100
large_addition_bytes = 55
[risk]
min_edits = 97
large_deletions = [{ above = 0, points = 30 }]
medium_from = 25
[health]
low_risk = 60
registered = 10
[regions]
europe = ["fr.wikipedia.org"]
middle_east = ["de.wikipedia.org", "he.wikipedia.org"]
"""
MIN_EDITS = 97
REGION = {
    **{"en.wikipedia.org": "americas", "ja.wikipedia.org": "asia_pacific", "commons.wikimedia.org": "other"},
    **{"de.wikipedia.org": "middle_east", "he.wikipedia.org": "middle_east"},
}
BEFORE = 620
"""The first part ends within an hour, 13:26."""


@pytest.fixture
def gates(settings: Settings) -> GateLake:
    return GateLake(settings)


def _rows() -> list[Row]:
    rows = clean_rows(RAW_EVENTS)
    for number in (0, 641):  # both are edits: one before and one after the change, 200 bytes shorter
        rows[number] |= {"length_old": rows[number]["length_new"] + 200, "length_delta": -200}
    return rows


def _changed_in_use(gates: GateLake) -> list[Row]:
    rows = _rows()
    gates.add_bronze(rows[:BEFORE])
    assert all(report.passed and report.advanced for report in gates.cycle())
    gates.ctx.settings.criteria_file.write_text(CHANGED)
    gates.add_bronze(rows[BEFORE:])
    return rows


def test_gold_is_of_one_set_of_criteria_and_silver_keeps_what_it_was_given(gates: GateLake) -> None:
    _changed_in_use(gates)
    again = GateLake(gates.ctx.settings)  # a later run: a job reads them once
    assert [report.passed and report.advanced for report in again.cycle()] == [True, True, True]

    silver = gates.lake.table(CLEANED_EVENTS).scan().to_arrow().to_pylist()
    silver.sort(key=lambda row: row["event_timestamp"])
    flags = [(row["is_large_deletion"], row["is_large_addition"]) for row in silver]
    assert set(flags[:BEFORE]) == {(False, False)}
    deltas = [row["length_delta"] or 0 for row in silver]
    assert flags[BEFORE:] == [(delta < -100, delta > 55) for delta in deltas[BEFORE:]]
    assert flags[641] == (True, False)
    assert {row["region"] for row in silver[:BEFORE] if row["domain"] == "de.wikipedia.org"} == {"europe"}
    assert {row["region"] for row in silver[BEFORE:] if row["domain"] == "de.wikipedia.org"} == {"middle_east"}

    hours = gates.rows(
        "select stat_hour, domain, region, unique_users::int, large_deletions::int, large_additions::int, schema_version"
        " from gold.hourly_stats"
    )
    [version] = {row[-1] for row in hours}
    assert version.startswith("2+")
    users, additions, deletions = defaultdict(set), Counter(), Counter()  # type: ignore[var-annotated]
    for row in silver:
        hour = (row["event_timestamp"].hour, row["domain"])
        users[hour].add(row["user_normalized"])
        deletions[hour] += (row["length_delta"] or 0) < -100
        additions[hour] += (row["length_delta"] or 0) > 55
    assert sorted(hours) == sorted(
        (hour, domain, REGION[domain], len(names), deletions[hour, domain], additions[hour, domain], version)
        for (hour, domain), names in users.items()
    )
    # Nobody is fast. Ada (number 0) and the IPv4 address (number 641) have a large deletion each, which gives 30 points.
    points = {"Ada": 30.0, "192.0.2.17": 50.0, "2001:DB8:0:0:0:0:0:42": 20.0, "~2026-12345-67": 20.0}
    edits = Counter(row["user_normalized"] for row in silver if row["user_normalized"] != "Sortbot")
    scored = [(number, points.get(user, 0.0)) for user, number in edits.items() if number >= MIN_EDITS]
    assert 0 < len(scored) < len(edits)
    assert sorted(gates.rows("select total_edits::int, risk_score, risk_level from gold.risk_scores")) == sorted(
        (number, score, "MEDIUM" if score >= 25 else "LOW") for number, score in scored
    )
    [(low, registered, total, score)] = gates.rows(
        "select low_risk_user_count / (low_risk_user_count + medium_risk_user_count), registered_user_percentage,"
        " total_events::int, platform_health_score from gold.daily_analytics_summary"
    )
    # All pages together grew, and 2 of 900 changes are large deletions.
    assert total == 900
    assert score == pytest.approx(60 * low + registered / 10 + 20 + 10)

    versions = [snapshot.summary for snapshot in gates.lake.table(CLEANED_EVENTS).metadata.snapshots]
    noted = [summary.additional_properties.get(CRITERIA_KEY) for summary in versions if summary]
    assert noted[:-1] == [None] * (len(noted) - 1)
    assert json.loads(noted[-1] or "")["sizes"] == {"large_deletion_bytes": 100, "large_addition_bytes": 55}


def test_without_the_criteria_the_rules_would_close_the_gate(gates: GateLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the audit that passes above looks at the rows."""
    _changed_in_use(gates)
    monkeypatch.setattr(TableSpec, "rules_under", lambda spec, _: spec.rules)
    again = GateLake(gates.ctx.settings)
    again.bronze_gate()
    assert blocking(again.silver()).keys() == {"region_mapping", "size_flags_consistent"}


def test_a_backfill_brings_computed_days_under_the_criteria(gates: GateLake) -> None:
    gates.add_bronze(_rows())
    gates.cycle()
    before = table_hashes(gates.lake)
    file = gates.ctx.settings.criteria_file
    file.write_text(CHANGED)
    assert backfill.run(GateLake(gates.ctx.settings).ctx, [DAY]).passed
    changed = table_hashes(gates.lake)
    assert {name for name in before if changed[name] != before[name]} == {spec.identifier for spec in GOLD_TABLES}
    file.unlink()
    assert backfill.run(GateLake(gates.ctx.settings).ctx, [DAY]).passed
    assert table_hashes(gates.lake) == before


def test_criteria_that_cannot_be_stop_the_layer_before_it_publishes(gates: GateLake) -> None:
    gates.add_bronze(_rows())
    gates.bronze_gate()
    file = gates.ctx.settings.criteria_file
    file.write_text("[risk]\nhigh_from = 30\n")
    before = gates.mains()
    with pytest.raises(ConfigurationError, match="risk: medium_from is 40 and must be below high_from, 30"):
        gates.silver()
    assert gates.mains() == before
    file.unlink()
    again = GateLake(gates.ctx.settings)
    assert all(report.passed and report.advanced for report in again.cycle()[1:])


@pytest.mark.parametrize(
    ("content", "told"), [(b"[risk]\nhigh_from = 30\n", "risk: medium_from is 40"), (b"# \xff\n", "is not UTF-8")]
)
def test_the_command_refuses_what_cannot_be(settings: Settings, content: bytes, told: str) -> None:
    settings.root.mkdir(parents=True)
    settings.criteria_file.write_bytes(content)
    shown = wikistream("criteria", settings=settings)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert f"{settings.criteria_file}" in shown.stderr
    assert told in shown.stderr


def test_the_command_prints_a_file_that_can_be_changed(settings: Settings) -> None:
    first = wikistream("criteria", settings=settings)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("# From the defaults; rows of Gold carry schema_version 2.\n")
    settings.root.mkdir(parents=True)
    settings.criteria_file.write_text(first.stdout.replace("high_from = 70", "high_from = 80"))
    second = wikistream("criteria", settings=settings)
    assert "high_from = 80\n" in second.stdout
    assert second.stdout.startswith(f"# From {settings.criteria_file}; rows of Gold carry schema_version 2+")
    open_home(settings)  # a folder that holds nothing but criteria may become a lake
    assert load_criteria(settings).risk.high_from == 80
