"""One edit through every layer, on a lake whose every row and snapshot is known."""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from wikistream_assets.cli.dlq import original_text
from wikistream_assets.embedded.home import user_key
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.readers.edits.trace import Trace, covers, trace
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DAILY_ANALYTICS_SUMMARY,
    DEAD_LETTER,
    ENTITY_TRENDS,
    GOLD_TABLES,
    HOURLY_STATS,
    QUARANTINE,
    RAW_EVENTS,
    RISK_SCORES,
)
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.lake.lakes import AT, add, full_row

pytestmark = pytest.mark.local

IP = "192.0.2.7"
GOOD, BY_IP, BAD, LATE, UNREAD = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(5))
REJECTED = "11111111-1111-4111-8111-111111111111"
DAY = {"event_date": "2024-03-01"}


@dataclass
class Known:
    """The lake, and the snapshot of each step that filled it."""

    settings: Settings
    lake: Lakehouse
    snapshots: dict[str, int] = field(default_factory=dict)

    def follow(self, event_id: str) -> Trace:
        return trace(self.lake, event_id, user_key(self.settings))

    def pseudonym(self, address: str) -> str:
        key = user_key(self.settings)
        return "ip-" + hmac.new(key, address.encode(), hashlib.sha256).hexdigest()[:16]


def raw(event_id: str, **values: Any) -> dict[str, Any]:
    return full_row(RAW_EVENTS, event_id=event_id, event_hour=12, domain="en.wikipedia.org", **DAY, **values)


def clean(event_id: str, user: str, **values: Any) -> dict[str, Any]:
    own = {"user_normalized": user, "domain": "en.wikipedia.org", "region": "americas", "title": "Talk:A"}
    return full_row(CLEANED_EVENTS, event_id=event_id, **(own | DAY | values))


def verdict(table: str, check: str, status: str, start: int | None, end: int, minutes: int) -> dict[str, Any]:
    return full_row(
        QUALITY_RESULTS,
        table_name=table,
        layer=table.split(".")[0],
        check_name=check,
        status=status,
        range_start=start,
        range_end=end,
        message=f"{check} says {status}",
        run_timestamp=AT + timedelta(minutes=minutes),
        run_date="2024-03-01",
        attempt=1,
    )


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Two Bronze snapshots, the first audited and consumed by Silver; Gold made from that; a third Bronze row set waits."""
    settings = Settings(home=tmp_path_factory.mktemp("trace") / "home")
    known = Known(settings, local_lake(settings))
    lake, ids = known.lake, known.snapshots
    wikistream("tables", settings=settings)  # opens the home, so that it has its key
    first = lake.state(RAW_EVENTS).head()
    silver_first = lake.state(CLEANED_EVENTS).head()
    assert first is not None
    assert silver_first is not None
    ids["first"] = first.snapshot_id
    ids["bronze"] = add(lake, RAW_EVENTS, raw(GOOD, kafka_offset=7), raw(BY_IP, kafka_offset=8), raw(BAD))
    ids["bronze2"] = add(lake, RAW_EVENTS, raw(LATE))
    ids["bronze3"] = add(lake, RAW_EVENTS, raw(UNREAD))
    ids["quarantine"] = add(
        lake, QUARANTINE, full_row(QUARANTINE, event_id=BAD, failed_rules="user_present", user_normalized=None, **DAY)
    )
    ids["silver"] = add(
        lake,
        CLEANED_EVENTS,
        clean(GOOD, "Ann"),
        clean(BY_IP, IP, user_kind="ip4", title=f"User talk:{IP} and 192.0.2.8"),
    )
    add_gold(known, ids["silver"])
    ids["silver2"] = add(lake, CLEANED_EVENTS, clean(LATE, "Ann"))
    add(
        lake,
        QUALITY_RESULTS,
        verdict("bronze.raw_events", "complete", "FAILED", ids["first"], ids["bronze"], 1),
        verdict("bronze.raw_events", "timely", "WARNING", ids["first"], ids["bronze"], 2),
        verdict("bronze.raw_events", "complete", "PASSED", ids["bronze"], ids["bronze2"], 3),
        verdict("silver.cleaned_events", "unique", "PASSED", ids["first"], ids["bronze"], 4),
        verdict("gold.hourly_stats", "sums", "PASSED", silver_first.snapshot_id, ids["silver"], 5),
        verdict("gold.hourly_stats", "sums", "PASSED", ids["silver"], ids["silver2"], 6),
    )
    letter = {"kafka_topic": "dlq-events", "event_date": "2024-03-01", "reason": "missing_domain"}
    original = base64.b64encode(b'\xff{"meta":{"id":"' + REJECTED.encode() + b'"}}').decode()
    ids["dead_letter"] = add(
        lake,
        DEAD_LETTER,
        full_row(DEAD_LETTER, kafka_offset=1, original=original, **letter),
        full_row(DEAD_LETTER, kafka_offset=2, original=base64.b64encode(b"\x1b[2Jnoise").decode(), **letter),
        full_row(DEAD_LETTER, kafka_offset=3, original="no base64", **letter),
        full_row(DEAD_LETTER, kafka_offset=4, original=None, **letter),
    )
    return known


def add_gold(known: Known, silver: int) -> None:
    position = {"silver.cleaned_events": silver}
    date = {"stat_date": "2024-03-01"}
    page = f"en.wikipedia.org:User talk:{known.pseudonym(IP)} and {known.pseudonym('192.0.2.8')}"
    decoy = f"en.wikipedia.org:User talk:{known.pseudonym('192.0.2.9')} and {known.pseudonym('192.0.2.8')}"
    rows = {
        HOURLY_STATS: [
            full_row(HOURLY_STATS, stat_hour=12, domain="en.wikipedia.org", region="americas", **date),
            full_row(HOURLY_STATS, stat_hour=13, domain="en.wikipedia.org", region="americas", **date),
            full_row(HOURLY_STATS, stat_hour=12, domain="de.wikipedia.org", region="europe", **date),
        ],
        RISK_SCORES: [full_row(RISK_SCORES, entity_id=e, **date) for e in ("Ann", known.pseudonym(IP))],
        ENTITY_TRENDS: [
            full_row(ENTITY_TRENDS, entity_type=kind, entity_id=name, **date)
            for kind, name in [
                ("user", "Ann"),
                ("user", known.pseudonym(IP)),
                ("domain", "en.wikipedia.org"),
                ("page", decoy),
                ("page", page),
            ]
        ],
        DAILY_ANALYTICS_SUMMARY: [full_row(DAILY_ANALYTICS_SUMMARY, summary_date="2024-03-01")],
    }
    for spec in GOLD_TABLES:
        known.snapshots[spec.identifier] = add(known.lake, spec, *rows[spec], position=position)


def test_event_is_followed_into_gold(known: Known) -> None:
    found = known.follow(GOOD)
    assert found.bronze is not None
    assert found.silver is not None
    assert (found.bronze.row["kafka_offset"], found.bronze.snapshot_id) == (7, known.snapshots["bronze"])
    assert found.silver.snapshot_id == known.snapshots["silver"]
    assert found.quarantine is None
    assert found.dead_letters == ()
    assert {(item.table, item.row.get("entity_type"), item.row.get("entity_id")) for item in found.gold} == {
        ("gold.hourly_stats", None, None),
        ("gold.risk_scores", "a", "Ann"),
        ("gold.entity_trends", "user", "Ann"),
        ("gold.entity_trends", "domain", "en.wikipedia.org"),
        ("gold.daily_analytics_summary", None, None),
    }
    assert all(item.snapshot_id == known.snapshots[item.table] for item in found.gold)
    [hour] = [item.row for item in found.gold if item.table == "gold.hourly_stats"]
    assert (hour["stat_hour"], hour["domain"]) == (12, "en.wikipedia.org")


def test_ip_user_is_found_in_gold_by_pseudonym_also_in_page_titles(known: Known) -> None:
    names = {item.row["entity_id"] for item in known.follow(BY_IP).gold if "entity_id" in item.row}
    assert names == {
        known.pseudonym(IP),
        "en.wikipedia.org",
        f"en.wikipedia.org:User talk:{known.pseudonym(IP)} and {known.pseudonym('192.0.2.8')}",
    }


def test_verdicts_are_those_on_the_events_own_range(known: Known) -> None:
    def checks(event_id: str) -> list[tuple[str, str, str]]:
        return [(v["table_name"], v["check_name"], v["status"]) for v in known.follow(event_id).verdicts]

    assert checks(GOOD) == [
        ("bronze.raw_events", "complete", "FAILED"),
        ("bronze.raw_events", "timely", "WARNING"),
        ("silver.cleaned_events", "unique", "PASSED"),
        ("gold.hourly_stats", "sums", "PASSED"),
    ]
    assert checks(LATE) == [("bronze.raw_events", "complete", "PASSED"), ("gold.hourly_stats", "sums", "PASSED")]
    assert checks(UNREAD) == []


def test_quarantined_event(known: Known) -> None:
    found = known.follow(BAD)
    assert found.silver is None
    assert found.gold == ()
    assert found.quarantine is not None
    assert found.quarantine.row["failed_rules"] == "user_present"
    assert found.quarantine.snapshot_id == known.snapshots["quarantine"]


def test_event_that_gold_has_not_counted_yet(known: Known) -> None:
    found = known.follow(LATE)
    assert found.silver is not None
    assert found.silver.snapshot_id == known.snapshots["silver2"]
    assert found.gold == ()


def test_dead_letter_is_found_by_the_id_in_its_bytes(known: Known) -> None:
    found = known.follow(REJECTED)
    assert found.bronze is None
    [letter] = found.dead_letters
    assert letter.row["kafka_offset"] == 1
    assert letter.snapshot_id == known.snapshots["dead_letter"]


@pytest.mark.parametrize("event_id", ["22222222-2222-4222-8222-222222222222", "' OR true --", "%", ""])
def test_unknown_id_is_one_line_and_exit_4(known: Known, event_id: str) -> None:
    done = wikistream("trace", event_id, settings=known.settings)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.startswith("error: no table holds the event")
    assert done.stderr.count("\n") == 1


def test_trace_is_readable(known: Known) -> None:
    done = wikistream("trace", BY_IP, settings=known.settings)
    assert done.returncode == 0
    assert done.stderr == ""
    for part in (
        "a partition 1 offset 8",
        f"snapshot {known.snapshots['bronze']}",
        f"snapshot {known.snapshots['silver']}",
        "1 FAILED",
        "complete says FAILED",
        "timely says WARNING",
        f"gold.risk_scores: stat_date=2024-03-01, entity_id={known.pseudonym(IP)}",
        f"snapshot {known.snapshots['gold.risk_scores']}",
    ):
        assert part in done.stdout
    assert "unique says" not in done.stdout


@pytest.mark.parametrize(
    ("event_id", "part"),
    [
        (LATE, "not counted yet"),
        (UNREAD, "no verdict"),
        (UNREAD, "not there yet"),
        (BAD, "failed_rules=user_present"),
        (REJECTED, "missing_domain"),
    ],
)
def test_trace_says_how_far_an_event_has_come(known: Known, event_id: str, part: str) -> None:
    assert part in wikistream("trace", event_id, settings=known.settings).stdout


STEPS = {40: 0, 30: 1, 20: 2, 10: 3}
"""Snapshots 10, 20, 30, 40 in order; older ones have expired."""


@pytest.mark.parametrize(
    ("start", "end", "snapshot", "covered"),
    [
        (10, 30, 20, True),
        (10, 30, 30, True),
        (10, 30, 10, False),
        (10, 30, 40, False),
        (None, 30, 10, True),
        (5, 30, 10, True),
        (5, 7, 10, False),
        (10, 30, 5, False),
        (10, 30, None, False),
        (30, 30, 30, False),
    ],
)
def test_range_includes_its_end_and_not_its_start(
    start: int | None, end: int, snapshot: int | None, covered: bool
) -> None:
    assert covers(start, end, snapshot, STEPS) is covered


def test_snapshots_that_have_expired_are_said_to_be(settings: Settings) -> None:
    lake = local_lake(settings)
    wikistream("tables", settings=settings)
    added = add(lake, RAW_EVENTS, raw(GOOD))
    add(lake, RAW_EVENTS, raw(LATE))
    table = lake.table(RAW_EVENTS)
    old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != table.current_snapshot().snapshot_id]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    done = wikistream("trace", GOOD, settings=settings)
    assert done.returncode == 0
    assert f"snapshot {added}, expired" in done.stdout


# ---- dead letters by hand ----------------------------------------------------------------------------------------------


def test_dlq_list_counts_by_reason(known: Known) -> None:
    done = wikistream("dlq", "list", settings=known.settings)
    assert done.returncode == 0
    [line] = [line.split() for line in done.stdout.splitlines() if "missing_domain" in line]
    assert line == ["dlq-events", "missing_domain", "4", "0", "2024-03-01T12:30:00Z", line[-1]]


def test_dlq_show_escapes_what_was_rejected(known: Known) -> None:
    done = wikistream("dlq", "show", "1:2", settings=known.settings)
    assert done.returncode == 0
    assert r"\x1b[2Jnoise" in done.stdout
    assert "\x1b" not in done.stdout
    binary = wikistream("dlq", "show", "dlq-events:1:1", settings=known.settings)
    assert rf'\xff{{"meta":{{"id":"{REJECTED}"}}}}' in binary.stdout


def test_dlq_show_is_bounded(known: Known) -> None:
    done = wikistream("dlq", "show", "--reason", "missing_domain", "-n", "2", "--bytes", "5", settings=known.settings)
    assert done.returncode == 0
    assert done.stdout.count("  original ") == 2
    cut = wikistream("dlq", "show", "1:2", "--bytes", "5", settings=known.settings)
    assert r"original    \x1b[2Jn … (4 more bytes)" in cut.stdout


@pytest.mark.parametrize(
    ("original", "shown"),
    [("no base64", "(no base64: no base64)"), ("é", "(no base64: é)"), ("\x1bé", r"(no base64: \x1bé)")],
)
def test_an_original_that_is_no_base64_is_shown_as_it_stands(original: str, shown: str) -> None:
    assert original_text(original, most_bytes=100) == shown


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["9:9"], 4),
        (["raw-events:1:1"], 4),
        (["--reason", "nope"], 4),
        (["x"], 2),
        (["1:-1"], 2),
        ([], 2),
        (["1:1", "--reason", "x"], 2),
    ],
)
def test_dlq_show_without_a_match_is_one_line(known: Known, arguments: list[str], code: int) -> None:
    done = wikistream("dlq", "show", *arguments, settings=known.settings)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
