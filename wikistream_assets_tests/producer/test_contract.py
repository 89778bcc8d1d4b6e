import json
from datetime import UTC, datetime

import pytest

from producer.contract import Accepted, Contract, Reason, Rejected, Skipped
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets_tests.producer.samples import EDIT_2026, ID, event, line

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)


@pytest.fixture
def contract() -> Contract:
    return Contract(FOLLOWED_DOMAINS, max_event_bytes=10_000, now=lambda: NOW)


REJECTED = {
    "not JSON: cut off": (line()[:200], Reason.NOT_JSON),
    "not JSON: empty": ("", Reason.NOT_JSON),
    "not JSON: NaN is no JSON number": (line(extra=0).replace('"extra": 0', '"extra": NaN'), Reason.NOT_JSON),
    "not JSON: half a surrogate pair": (line(title="X").replace('"X"', '"\\ud800"'), Reason.NOT_JSON),
    "not JSON: not UTF-8": (line(title="X").encode().replace(b'"X"', b'"\xff\xfe"'), Reason.NOT_JSON),
    "not an object": ("[1, 2]", Reason.NOT_OBJECT),
    "not an object: null": ("null", Reason.NOT_OBJECT),
    "no meta": (line("meta"), Reason.MISSING_ID),
    "meta is null": (line(meta=None), Reason.MISSING_ID),
    "meta is a string": (line(meta="x"), Reason.WRONG_TYPE),
    "no id": (line("meta_id"), Reason.MISSING_ID),
    "id is null": (line(meta_id=None), Reason.MISSING_ID),
    "id is empty": (line(meta_id=""), Reason.MISSING_ID),
    "id is a number": (line(meta_id=5), Reason.WRONG_TYPE),
    "no domain": (line("meta_domain"), Reason.MISSING_DOMAIN),
    "domain is empty": (line(meta_domain=""), Reason.MISSING_DOMAIN),
    "domain is an object": (line(meta_domain={"a": 1}), Reason.WRONG_TYPE),
    "no type": (line("type"), Reason.MISSING_TYPE),
    "type is null": (line(type=None), Reason.MISSING_TYPE),
    "type is a boolean": (line(type=True), Reason.WRONG_TYPE),
    "no time": (line("timestamp", "meta_dt"), Reason.MISSING_TIME),
    "both times null": (line(timestamp=None, meta_dt=None), Reason.MISSING_TIME),
    "dt is no time": (line("timestamp", meta_dt="yesterday"), Reason.INVALID_TIME),
    "dt is no time beside a timestamp": (line(meta_dt="2026-13-01T00:00:00Z"), Reason.INVALID_TIME),
    "time 0": (line(timestamp=0), Reason.INVALID_TIME),
    "time before the first wiki": (line("timestamp", meta_dt="2001-01-14T23:59:59Z"), Reason.INVALID_TIME),
    "timestamp is a string": (line(timestamp="1772366400"), Reason.WRONG_TYPE),
    "timestamp is a float": (line(timestamp=1772366400.5), Reason.WRONG_TYPE),
    "timestamp in milliseconds": (line(timestamp=1772366400000), Reason.FUTURE_TIME),
    "more than 24 h ahead": (line(timestamp=int(NOW.timestamp()) + 86_401), Reason.FUTURE_TIME),
    "more than 24 h ahead by dt": (line("timestamp", meta_dt="2026-03-02T12:00:06Z"), Reason.FUTURE_TIME),
    "bot is a string": (line(bot="false"), Reason.WRONG_TYPE),
    "user is a number": (line(user=42), Reason.WRONG_TYPE),
    "namespace is a string": (line(namespace="0"), Reason.WRONG_TYPE),
    "namespace beyond its column": (line(namespace=2**31), Reason.WRONG_TYPE),
    "length is a number": (line(length=12), Reason.WRONG_TYPE),
    "length.new is a string": (line(length={"old": 1, "new": "2"}), Reason.WRONG_TYPE),
    "revision beyond 64 bits": (line(revision={"new": 2**70}), Reason.WRONG_TYPE),
    "over the limit in bytes, not in characters": (line(comment="é" * 4_990), Reason.OVERSIZED),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_each_defect_has_its_reason(contract: Contract, name: str) -> None:
    text, reason = REJECTED[name]
    verdict = contract.judge(text)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is reason
    assert verdict.detail


def test_every_reason_is_covered() -> None:
    assert {reason for _, reason in REJECTED.values()} == set(Reason)


ACCEPTED = {
    "2026": line(),
    "as bytes": line().encode(),
    "2021: dt without milliseconds, no title_url": line("title_url", "notify_url", meta_dt="2026-03-01T12:00:02Z"),
    "2019: schema_uri, dt with offset, no $schema": line(
        "$schema", "meta_stream", meta_dt="2026-03-01T12:00:02+00:00", meta_schema_uri="mediawiki/recentchange/2"
    ),
    "dt with microseconds": line(meta_dt="2026-03-01T12:00:02.345678Z"),
    "only timestamp": line("meta_dt"),
    "only dt": line("timestamp"),
    "24 h ahead is still accepted": line(timestamp=int(NOW.timestamp()) + 86_400),
    "numeric type as string": line(type="142"),
    "numeric type as number": line(type=142),
    "type number 0": line(type=0),
    "external": line("length", "revision", type="external"),
    "log event without id": line("id", "length", "revision", type="log", log_id=0, log_params=[]),
    "log event with id null": line("length", "revision", type="log", id=None),
    "new page without the old length": line(type="new", length={"new": 5}, revision={"new": 9}),
    "old length null": line(type="new", length={"old": None, "new": 5}),
    "no user": line("user"),
    "IPv6 user": line(user="2001:DB8:0:0:0:0:0:1"),
    "unknown fields": line(something={"deep": [1, None]}, meta_extra=1),
    "control characters and other scripts": line(title="Kessel\u0007\u202e\u0000 فارسی 日本語 😀"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_version_of_the_stream_is_accepted(contract: Contract, name: str) -> None:
    assert contract.judge(ACCEPTED[name]) == Accepted(ID)


def test_size_limit_is_inclusive_and_in_bytes(contract: Contract) -> None:
    text = line(comment="é" * 4_000)
    exact = text + " " * (10_000 - len(text.encode()))
    assert contract.judge(exact) == Accepted(ID)
    assert isinstance(contract.judge(exact + " "), Rejected)


@pytest.mark.parametrize(
    "broken",
    [
        event("meta_id"),
        event("type"),
        event("timestamp", "meta_dt"),
        event(timestamp=9_999_999_999),
        event(bot="no"),
        event(),
    ],
)
def test_canary_is_counted_whatever_else_is_wrong_with_it(contract: Contract, broken: dict) -> None:
    broken["meta"]["domain"] = "canary"
    assert contract.judge(json.dumps(broken)) is Skipped.CANARY


def test_domain_filter(contract: Contract) -> None:
    assert len(FOLLOWED_DOMAINS) == 18
    for domain in FOLLOWED_DOMAINS:
        assert contract.judge(line(meta_domain=domain)) == Accepted(ID)
    assert contract.judge(line(meta_domain="commons.wikimedia.org")) is Skipped.FILTERED
    assert contract.judge(line(meta_domain="EN.wikipedia.org")) is Skipped.FILTERED


def test_a_defect_outside_the_filter_is_still_a_defect(contract: Contract) -> None:
    verdict = contract.judge(line("type", meta_domain="commons.wikimedia.org"))
    assert isinstance(verdict, Rejected)


def test_no_filter_follows_all() -> None:
    assert Contract(None, 10_000, now=lambda: NOW).judge(line(meta_domain="commons.wikimedia.org")) == Accepted(ID)


def test_the_clock_is_asked_again_as_time_goes_by() -> None:
    clock = [NOW]
    contract = Contract(None, 10_000, now=lambda: clock[0])
    tomorrow = line("timestamp", meta_dt="2026-03-02T13:00:00Z")
    assert isinstance(contract.judge(tomorrow), Rejected)
    clock[0] = datetime(2026, 3, 1, 13, 0, 1, tzinfo=UTC)
    assert contract.judge(tomorrow) == Accepted(ID)


def test_sample_is_left_alone() -> None:
    event("type", meta_id=None)
    assert EDIT_2026["type"] == "edit"
    assert EDIT_2026["meta"]["id"] == ID
