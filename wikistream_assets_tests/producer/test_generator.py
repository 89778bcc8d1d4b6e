import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

import pytest

from producer.contract import Reason
from producer.eventstreams.generator import ACTORS, BLOCK, MALFORMED_CYCLE, Generator
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.settings import Settings

pytestmark = pytest.mark.unit

SOURCE = Generator(events=12_000, malformed=0.005)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return [line.data for line in SOURCE.lines()]


@pytest.fixture(scope="module")
def events(lines: list[bytes]) -> list[dict]:
    """What a plain JSON parser accepts as events of a real domain and a readable time before the year 3000."""
    return [document for document in map(_parse, lines) if document and _defect(document) is None]


def _parse(line: bytes) -> dict | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _defect(document: dict) -> str | None:
    """The truth told by an independent reader: the reason classes as their documentation words them."""
    meta = document["meta"]
    if meta.get("domain") == "canary":
        return "canary"
    if len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()) > 1_000_000:
        return "oversized"
    for field, holder in (("id", meta), ("domain", meta), ("type", document)):
        if not holder.get(field):
            return f"missing_{field}"
    if "timestamp" not in document and "dt" not in meta:
        return "missing_time"
    if not isinstance(document["namespace"], int):
        return "wrong_type"
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", meta["dt"]):
        return "invalid_time"
    return "future_time" if document["timestamp"] > 4_000_000_000 else None


def test_the_same_parameters_give_the_same_bytes(lines: list[bytes]) -> None:
    again = replace(SOURCE)
    assert again.identity == SOURCE.identity
    assert (
        hashlib.sha256(b"\n".join(line.data for line in again.lines())).digest()
        == hashlib.sha256(b"\n".join(lines)).digest()
    )


@pytest.mark.parametrize(
    "changed",
    [{"seed": 8}, {"events": 12_001}, {"hours": 25}, {"start": datetime(2026, 3, 2, 11, tzinfo=UTC)}, {"followed_share": 0.5},
     {"redelivered": 0.1}, {"malformed": 0.1}, {"canary": 0.1}, {"oversized_bytes": 1_000_200}, {"continuous": True}],
)  # fmt: skip
def test_other_parameters_are_another_source(changed: dict) -> None:
    assert replace(SOURCE, **changed).identity != SOURCE.identity


@pytest.mark.parametrize("first", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17, 11_999, 12_000])
def test_reading_on_from_any_line_gives_the_same_lines(lines: list[bytes], first: int) -> None:
    assert [line.data for line in SOURCE.lines(first)] == lines[first:]


@pytest.mark.parametrize("domains", [FOLLOWED_DOMAINS, None, frozenset({"de.wikipedia.org"})])
def test_manifest_equals_a_recount(lines: list[bytes], domains: frozenset[str] | None) -> None:
    counts: Counter[str] = Counter()
    malformed: Counter[str] = Counter()
    ids: set[str] = set()
    for line in lines:
        document = _parse(line)
        if document is None:
            malformed["not_object" if line.startswith(b"[") else "not_json"] += 1
        elif (defect := _defect(document)) == "canary":
            counts["canary"] += 1
        elif defect:
            malformed[defect] += 1
        elif domains is not None and document["meta"]["domain"] not in domains:
            counts["filtered"] += 1
        elif document["meta"]["id"] in ids:
            counts["redelivered"] += 1
        else:
            ids.add(document["meta"]["id"])
    ledger: set[str] = set()
    manifest = SOURCE.manifest(domains, ledger)
    assert ledger == ids
    assert manifest.malformed == malformed
    assert (manifest.unique, manifest.redelivered) == (len(ids), counts["redelivered"])
    assert (manifest.canary, manifest.filtered) == (counts["canary"], counts["filtered"])
    assert manifest.filtered_domains.total() == manifest.filtered
    parts = manifest.unique + manifest.redelivered + manifest.dead_lettered + manifest.canary + manifest.filtered
    assert manifest.lines == len(lines) == parts == 12_000
    assert manifest.bytes == sum(map(len, lines))


def test_as_many_malformed_lines_as_asked_for_and_every_class_of_them() -> None:
    assert Generator(events=1_000, malformed=0.01).manifest().dead_lettered == 10
    assert SOURCE.manifest().dead_lettered == 60
    assert (
        set(SOURCE.manifest().malformed)
        == {reason.value for reason in Reason}
        == {reason.value for reason in MALFORMED_CYCLE}
    )


def test_what_the_real_stream_holds_is_there(events: list[dict]) -> None:
    types = Counter(event["type"] for event in events)
    assert set(types) == {"edit", "categorize", "log", "new", "142"}
    assert 0.58 < types["edit"] / len(events) < 0.68
    assert 0.03 < types["new"] / len(events) < 0.08
    assert all(set(event["length"]) == {"new"} == set(event["revision"]) for event in events if event["type"] == "new")
    assert all("length" not in event for event in events if event["type"] in ("log", "categorize", "142"))
    logs = [event for event in events if event["type"] == "log"]
    assert 0 < sum("id" not in event for event in logs) < len(logs)
    assert any("id" in event and event["id"] is None for event in logs)
    domains = Counter(event["meta"]["domain"] for event in events)
    assert set(domains) > FOLLOWED_DOMAINS
    assert 0.42 < sum(domains[domain] for domain in FOLLOWED_DOMAINS) / len(events) < 0.48
    assert 0.28 < sum(event["bot"] for event in events) / len(events) < 0.38
    sizes = [len(json.dumps(event, ensure_ascii=False)) for event in events]
    assert 1_000 < sum(sizes) / len(sizes) < 1_800


def test_users_of_every_kind_and_hostile_names(events: list[dict]) -> None:
    users = {event["user"] for event in events if "user" in event}
    assert sum("user" not in event for event in events) > 0
    assert any(re.fullmatch(r"~2026-\d{5}-\d\d", user) for user in users)
    assert any(re.fullmatch(r"[\d.]{7,15}", user) for user in users)
    assert any(re.fullmatch(r"[0-9A-F:]+:[0-9A-F:]+", user) for user in users)
    assert any(re.search(r"[\u0000-\u001f\u007f-\u009f\u200e\u202e]", user) for user in users)
    assert any(re.search(r"[\u0000-\u001f\u007f-\u009f\u200e\u202e]", event["title"]) for event in events)
    wikis_of = defaultdict(set)
    for event in events:
        wikis_of[event.get("user")].add(event["meta"]["domain"])
    assert max(len(wikis) for user, wikis in wikis_of.items() if user) > 5


def test_time_runs_over_two_days_and_dt_follows_timestamp(events: list[dict]) -> None:
    moments = [datetime.fromisoformat(event["meta"]["dt"]) for event in events]
    assert {moment.date().isoformat() for moment in moments} == {"2026-03-02", "2026-03-03"}
    assert len({(moment.date(), moment.hour) for moment in moments}) in (26, 27)
    lags = [
        round(moment.timestamp() * 1000) - event["timestamp"] * 1000
        for moment, event in zip(moments, events, strict=True)
    ]
    assert 600 <= min(lags) < max(lags) <= 6_100


def test_planted_accounts_stand_out_and_nobody_else_does(events: list[dict]) -> None:
    hours: Counter[tuple[str, str]] = Counter()
    deletions: Counter[str] = Counter()
    for event in events:
        if event.get("user") and not event["bot"] and event["meta"]["domain"] in FOLLOWED_DOMAINS:
            hours[event["user"], event["meta"]["dt"][:13]] += 1
            if event["type"] == "edit" and event["length"]["new"] - event["length"]["old"] < -5_000:
                deletions[event["user"]] += 1
    busy = {user for (user, _), edits in hours.items() if edits > 50}
    assert busy == {actor.user for actor in ACTORS if actor.edits > 50}
    assert {user: deletions[user] for user in deletions if deletions[user] > 3} == {
        actor.user: actor.large_deletions for actor in ACTORS if actor.large_deletions
    }


def test_large_changes_in_both_directions() -> None:
    wide = [json.loads(line.data) for line in Generator(events=30_000, malformed=0).lines()]
    deltas = [event["length"]["new"] - event["length"]["old"] for event in wide if event.get("type") == "edit"]
    assert 0.001 < sum(delta < -5_000 for delta in deltas) / len(deltas) < 0.006
    assert sum(delta > 50_000 for delta in deltas) > 0
    assert all(min(event["length"].values()) >= 0 for event in wide if "length" in event)


def test_a_lasting_source_goes_on_in_the_middle_of_its_year() -> None:
    start = datetime(2026, 11, 21, 13, 45, 8, tzinfo=UTC)
    lasting = Generator.lasting(start, 50, seed=11)
    first = 50 * 3600 * 24 * 200  # its 200th day
    made = list(islice(lasting.lines(first), 3 * BLOCK))
    assert [line.data for line in made] == [
        line.data for line in islice(Generator.lasting(start, 50, seed=11).lines(first), 3 * BLOCK)
    ]
    assert [line.data for line in islice(lasting.lines(first + BLOCK + 5), 10)] == [
        line.data for line in made[BLOCK + 5 : BLOCK + 15]
    ]
    assert made[0].time_ms == round((start + timedelta(days=200)).timestamp() * 1000)
    events = [document for line in made if (document := _parse(line.data)) and _defect(document) is None]
    moments = [datetime.fromisoformat(event["meta"]["dt"]) for event in events]
    repeats = {
        index for index, event in enumerate(events) if event["meta"]["id"] in {e["meta"]["id"] for e in events[:index]}
    }
    fresh = [moment for index, moment in enumerate(moments) if index not in repeats]
    assert fresh == sorted(fresh), "who waits for one is not late for the next"
    assert all(b - a <= timedelta(milliseconds=200) for a, b in pairwise(fresh))
    lags = [moment.timestamp() - event["timestamp"] for event, moment in zip(events, moments, strict=True)]
    assert 0.599 < min(lags) < max(lags) < 7.101
    assert all(event["revision"]["old"] > 0 for event in events if event.get("type") == "edit")


def test_in_each_hour_of_a_lasting_source_one_planted_account_stands_out() -> None:
    start = datetime(2026, 11, 21, 13, 30, tzinfo=UTC)  # the hours are those of the clock
    hours: Counter[tuple[str, str]] = Counter()
    for line in islice(
        Generator.lasting(
            start,
            10,
            seed=12,
        ).lines(),
        10 * 3600 * 5 // 2,
    ):
        document = _parse(line.data)
        if document and _defect(document) is None and document.get("user") and not document["bot"]:
            hours[document["meta"]["dt"][:13], document["user"]] += 1
    edits = {actor.user: actor.edits for actor in ACTORS}
    busy = {(hour, user): number for (hour, user), number in hours.items() if number > 50}
    assert set(busy.items()) <= {((hour, user), edits.get(user, 0)) for hour, user in busy}, "nobody else"
    seen = {(hour, user): n for (hour, user), n in hours.items() if user in edits}
    assert {hour for hour, _ in seen} == {"2026-11-21T13", "2026-11-21T14", "2026-11-21T15"}
    assert all(seen[hour, user] == edits[user] for hour, user in seen if hour != "2026-11-21T13")


@pytest.mark.real_data
def test_events_validate_against_the_published_schemas(events: list[dict]) -> None:
    folder = Settings().data / "schemas"
    if not folder.is_dir():
        pytest.skip(f"no published schemas in {folder}: set WIKISTREAM_DATA to the folder of captures")
    assert _violations(folder, events) == []


def _violations(folder: Path, events: list[dict]) -> list[str]:
    import jsonschema
    import yaml

    found = []
    for version in ("1.0.0", "1.0.1"):
        schema = yaml.safe_load((folder / f"recentchange-{version}.yaml").read_text())
        schema["$schema"] = "http://json-schema.org/draft-07/schema#"  # published with https, which no validator knows
        schema.pop("$id")
        validator = jsonschema.Draft7Validator(schema)
        found += [f"{version}: {error.message}" for event in events for error in validator.iter_errors(event)]
    return found
