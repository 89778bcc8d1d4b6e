"""The oracle itself: it must reproduce what was counted in the captures before this project existed, and see differences."""

from collections import Counter

import pytest

from wikistream_assets.settings import Settings
from wikistream_assets_tests import oracle

pytestmark = pytest.mark.unit

CAPTURE = Settings().data.expanduser().resolve() / "events" / "recentchange_2021-10-07_08_es_en_de.jsonl.gz"


@pytest.fixture(scope="module")
def silver() -> list[oracle.Row]:
    if not CAPTURE.exists():
        pytest.skip(f"{CAPTURE} is absent: set WIKISTREAM_DATA to the folder that holds events/")
    lines = oracle.read_capture(CAPTURE)
    rows = oracle.silver_rows(oracle.bronze_rows(lines, domains=None))
    assert (len(lines), len(rows)) == (48_252, 48_206)
    return rows


@pytest.mark.real_data
def test_users_and_sizes_as_counted_in_the_events(silver: list[oracle.Row]) -> None:
    kinds = Counter(row["user_kind"] for row in silver)
    assert (kinds["ip4"], kinds["ip6"], kinds["bot"], kinds["temporary"]) == (3_393, 1_371, 14_426, 0)
    assert sum(row["is_large_deletion"] for row in silver) == 60
    # Six edits, and a new page that is large from the start: without length_old = 0 it would not be seen.
    additions = Counter(row["event_type"] for row in silver if row["is_large_addition"])
    assert additions == {"edit": 6, "new": 1}


@pytest.mark.real_data
def test_risk_levels_as_counted_in_the_events(silver: list[oracle.Row]) -> None:
    user_days = {(row["event_date"], row["user_normalized"]) for row in silver}
    of_bots = {(row["event_date"], row["user_normalized"]) for row in silver if row["is_bot"]}
    risks = oracle.Gold(silver, key=b"key").risk_scores()
    assert len(user_days - of_bots) == 6_341
    assert Counter(risk["risk_level"] for risk in risks) == {"MEDIUM": 16, "LOW": len(risks) - 16}
    assert (1_136, 568.0) in {(risk["total_edits"], risk["edits_per_hour_avg"]) for risk in risks}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("capture", "trending"),
    [
        (
            CAPTURE.name,
            {
                ("2021-10-07", "Newcastle United F.C.", 10, 6),
                ("2021-10-07", "Don La Greca", 6, 4),
                ("2021-10-08", "Lee Jung-jae", 24, 4),
                ("2021-10-08", "Maria Ressa", 12, 6),
                ("2021-10-08", "Clement Bowman", 11, 4),
                ("2021-10-08", "Rust (video game)", 7, 5),
                ("2021-10-08", "Dmitri Andrejewitsch Muratow", 5, 5),
                ("2021-10-08", "2021 Pacific typhoon season", 7, 4),
            },
        ),
        ("wikiticker_2015-09-12_39244_reenveloped.jsonl.gz", {("2015-09-12", "Anthony Martial", 6, 6)}),
    ],
)
def test_trending_pages_are_the_news_of_their_days(capture: str, trending: set[tuple[str, str, int, int]]) -> None:
    path = CAPTURE.with_name(capture)
    if not path.exists():
        pytest.skip(f"{path} is absent: set WIKISTREAM_DATA to the folder that holds events/")
    silver = oracle.silver_rows(oracle.bronze_rows(oracle.read_capture(path), domains=None))
    found = {
        (row["stat_date"], row["entity_id"].partition(":")[2], row["burst_edits"], row["burst_editors"])
        for row in oracle.Gold(silver, key=b"key").entity_trends()
        if row["trend_rank"] is not None
    }
    assert found == trending


def test_each_event_once_canaries_and_broken_lines_never() -> None:
    event = '{"meta":{"id":"%s","domain":"%s","dt":"%s"},"type":%s}'
    lines = [
        event % ("a", "en.wikipedia.org", "2026-01-05T10:00:00.250Z", '"edit"'),
        event % ("b", "de.wikipedia.org", "2026-01-05T10:00:00Z", "142"),
        event % ("a", "en.wikipedia.org", "2026-01-05T11:00:00Z", '"log"'),
        event % ("c", "canary", "2026-01-05T10:00:00Z", '"edit"'),
        event % ("", "en.wikipedia.org", "2026-01-05T10:00:00Z", '"edit"'),
        '{"type":"edit"}',
        "[]",
        "not json",
    ]
    rows = oracle.bronze_rows(lines, domains=None)
    assert [(row["event_id"], row["event_type"], row["event_timestamp"].isoformat()) for row in rows] == [
        ("a", "edit", "2026-01-05T10:00:00.250000+00:00"),
        ("b", "142", "2026-01-05T10:00:00+00:00"),
    ]
    assert [row["event_id"] for row in oracle.bronze_rows(lines, frozenset({"de.wikipedia.org"}))] == ["b"]


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ([{"id": 1, "share": 0.5}], "rows missing"),
        ([{"id": 1, "share": 0.5}, {"id": 2, "share": None}, {"id": 3, "share": 1.0}], "rows too many"),
        ([{"id": 1, "share": 0.5}, {"id": 1, "share": 0.5}, {"id": 2, "share": None}], "two rows with {'id': 1}"),
        ([{"id": 1, "share": 0.500_001}, {"id": 2, "share": None}], r"share: 0.500001, expected 0.5"),
        ([{"id": 1, "share": 0.5}, {"id": 2, "share": 0.0}], r"share: 0.0, expected None"),
        ([{"id": 1}, {"id": 2, "share": None}], r"share: 'absent', expected 0.5"),
        ([{"id": 1, "share": 0.5, "more": 1}, {"id": 2, "share": None}], r"more: 1, expected 'absent'"),
    ],
)
def test_differences_are_seen(actual: list[oracle.Row], message: str) -> None:
    expected = [{"id": 2, "share": None}, {"id": 1, "share": 0.5}]
    oracle.assert_same_rows(reversed(expected), expected, ["id"])
    with pytest.raises(AssertionError, match=message.replace("{", r"\{")):
        oracle.assert_same_rows(actual, expected, ["id"])
