"""Every named query on a small lake. What it must answer is counted from the events, or stands here as it was planted."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.query import query
from wikistream_assets.readers.edits.named_queries import NAMED_QUERIES
from wikistream_assets.settings import Settings
from wikistream_assets.streams.registry import TABLE_BY_IDENTIFIER
from wikistream_assets_tests import oracle
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.lake.lakes import add
from wikistream_assets_tests.quality.samples import gold_rows

pytestmark = pytest.mark.local

OLD, FIRST, NEWS, NEWEST = (datetime(2026, 3, day, 12, tzinfo=UTC) for day in (2, 3, 8, 9))
"""The newest seven dates begin with ``FIRST``; what happened on ``OLD`` must not show but where all days do."""

EN, DE, DATA = "en.wikipedia.org", "de.wikipedia.org", "www.wikidata.org"
Row = dict[str, Any]


def _events() -> Iterator[str]:
    def edits(number: int, start: datetime, domain: str, title: str, users: list[str], **fields: Any) -> Iterator[str]:
        for each in range(number):
            happened = start + each * timedelta(seconds=20)
            event = {
                "meta": {"id": f"{domain} {title} {happened}", "domain": domain},
                "type": "edit",
                "namespace": 0,
                "title": title,
                "timestamp": int(happened.timestamp()),
                "user": users[each % len(users)],
                "bot": False,
                "length": {"old": 9_000, "new": 9_010},
            }
            yield json.dumps({**event, **fields})

    people, deletion = [f"Person {number}" for number in range(6)], {"old": 9_000, "new": 1_000}
    yield from edits(12, OLD, EN, "Old news", people)
    yield from edits(12, NEWS, EN, "News", people)
    for day in (OLD, NEWEST):
        yield from edits(60, day, EN, "Vandalised", ["Vandal"])
        yield from edits(5, day + timedelta(minutes=30), EN, "Deleted", ["Vandal"], length=deletion)
    yield from edits(7, FIRST, DE, "Tee", ["~2026-1", "Ada", "192.0.2.1"])
    yield from edits(2, FIRST, DE, "Milch", ["Ada"], type="new", length={"new": 300})
    yield from edits(3, FIRST, DE, "Weg", ["Bo"], length=deletion)
    yield from edits(40, FIRST, DATA, "Q1", ["Hausbot"], bot=True)
    yield from edits(4, NEWEST + timedelta(hours=1), DATA, "Q2", ["Ada"])
    yield from edits(9, NEWEST + timedelta(hours=1), DE, "Q2", ["Sortbot"], bot=True)


@pytest.fixture(scope="module")
def silver() -> list[Row]:
    return oracle.silver_rows(oracle.bronze_rows(_events(), None))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, silver: list[Row]) -> Settings:
    """A home with the Gold of these events, and one date of it that is older than the language."""
    settings = Settings(home=tmp_path_factory.mktemp("queries") / "home")
    lake = local_lake(settings)
    for identifier, rows in gold_rows(silver).items():
        if identifier == "gold.hourly_stats":
            rows = [{**row, "language": None} if row["stat_date"] == "2026-03-08" else row for row in rows]
        add(lake, TABLE_BY_IDENTIFIER[identifier], *rows, position={"silver.cleaned_events": 1})
    return settings


def _expected(name: str, silver: list[Row]) -> list[tuple[Any, ...]]:
    newest = [row for row in silver if row["event_timestamp"] >= FIRST.replace(hour=0)]
    today = [row for row in silver if row["event_date"] == "2026-03-09"]

    def count(rows: list[Row], **fields: Any) -> int:
        return sum(all(row[name] == value for name, value in fields.items()) for row in rows)

    def share(rows: list[Row], **fields: Any) -> float:
        return 100 * count(rows, **fields) / len(rows)

    def groups(column: str) -> list[tuple[Any, list[Row]]]:
        of = {value: [row for row in newest if row[column] == value] for value in {row[column] for row in newest}}
        return sorted(of.items(), key=lambda item: -len(item[1]))

    def net_bytes(rows: list[Row]) -> int:
        return sum(row["length_delta"] for row in rows)

    match name:
        case "edit-velocity":
            hours = {hour: [row for row in today if row["event_timestamp"].hour == hour] for hour in (12, 13)}
            # The newest event is at 13:03: no hour is over for long enough.
            return [
                ("2026-03-09", hour, len(rows), count(rows, is_bot=False), count(rows, is_bot=True), False)
                for hour, rows in hours.items()
            ]
        case "top-contributors":
            return [
                ("2026-03-09", 1, "Vandal", 65, 65.0),
                ("2026-03-09", 2, "Sortbot", 9, 9.0),
                ("2026-03-09", 3, "Ada", 4, 4.0),
            ]
        case "trending-pages":
            # Nobody had edited the page before, and 11:15 begins the first hour that holds all of its edits.
            start = datetime(2026, 3, 8, 11, 15, tzinfo=UTC)
            return [("2026-03-08", 1, "en.wikipedia.org:News", start, 12, 6, 1.0, 12.0)]
        case "suspicious-users":
            evidence = {
                "edits_per_hour": {"value": 65.0, "points": 40},
                "large_deletions": {"value": 5, "points": 30},
                "anonymous_percentage": {"value": 0.0, "points": 0},
                "domains": {"value": 1, "points": 0},
            }
            return [("2026-03-09", "Vandal", "registered", "HIGH", 70.0, 65, 65.0, 5, 1, evidence)]
        case "large-deletions":
            return [
                (domain, deletions, human, 1000 * deletions / human)
                for domain in (EN, DE)
                for rows in [[row for row in newest if row["domain"] == domain]]
                for deletions, human in [(count(rows, is_large_deletion=True), count(rows, is_bot=False))]
            ]
        case "regions":
            return [
                (
                    *(region, len(rows), 100 * len(rows) / len(newest), len({row["domain"] for row in rows})),
                    *(share(rows, is_bot=True), share(rows, is_anonymous=True), net_bytes(rows)),
                )
                for region, rows in groups("region")
            ]
        case "language-editions":
            unknown = [row for row in newest if row["event_date"] == "2026-03-08"]
            known = [row for row in newest if row["event_date"] != "2026-03-08"]
            of: dict[str | None, list[Row]] = {
                language: [row for row in known if row["domain"] == domain]
                for language, domain in (("en", EN), ("de", DE), ("mul", DATA))
            }
            return [
                (
                    *(language, len(rows), 100 * len(rows) / len(newest), 1),
                    *(share(rows, is_bot=True), share(rows, is_anonymous=True), count(rows, event_type="new")),
                    net_bytes(rows),
                )
                for language, rows in sorted({**of, None: unknown}.items(), key=lambda item: -len(item[1]))
            ]
        case "bots":
            return [
                (domain, count(rows, is_bot=True), count(rows, is_bot=False), share(rows, is_bot=True))
                for domain, rows in sorted(groups("domain"), key=lambda item: -count(item[1], is_bot=True))
            ]
        case "bots-by-day":
            return [
                (
                    *(day, len(rows), share(rows, is_bot=True), share(rows, is_anonymous=True)),
                    *(share(rows, user_kind="registered"), day < "2026-03-09"),
                )
                for day in ("2026-03-09", "2026-03-08", "2026-03-03")
                for rows in [[row for row in newest if row["event_date"] == day]]
            ]
    raise AssertionError(f"{name} has no expectation here: add one")


@pytest.mark.parametrize("name", NAMED_QUERIES)
def test_each_query_answers_from_the_events(name: str, settings: Settings, silver: list[Row]) -> None:
    found = query(local_lake(settings), NAMED_QUERIES[name].sql)
    rows = [
        tuple(
            json.loads(value) if column == "evidence" else value
            for column, value in zip(found.columns, row, strict=True)
        )
        for row in found.rows
    ]
    expected = _expected(name, silver)
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row == tuple(pytest.approx(value) if isinstance(value, float) else value for value in wanted)


def test_each_use_case_has_a_query() -> None:
    assert {query.use_case for query in NAMED_QUERIES.values()} == {
        "content monitoring",
        "vandalism detection",
        "regional analysis",
        "bot activity",
    }


def test_queries_are_listed_run_and_guessed(settings: Settings) -> None:
    listed = wikistream("queries")
    assert listed.returncode == 0
    assert all(f" {name} " in listed.stdout for name in NAMED_QUERIES)
    done = wikistream("queries", "top-contributors", "-f", "json", "-n", "1", settings=settings)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"stat_date": "2026-03-09", "rank": 1, "user_name": "Vandal", "edits": 65, "edits_per_hour": 65.0}
    ]
    shown = wikistream("queries", "language-editions", settings=settings)
    assert shown.returncode == 0
    assert shown.stdout.startswith("language editions compared")
    mistyped = wikistream("queries", "langage-editions", settings=settings)
    assert (mistyped.returncode, mistyped.stdout) == (2, "")
    assert mistyped.stderr == "error: there is no query 'langage-editions': did you mean language-editions?\n"
