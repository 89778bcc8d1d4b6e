"""The router: said once, said again, cleared; held back, delivered later, given up; the same in every process."""

import json
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wikistream_assets.alerts import Alert, AlertKind, Alerts, Severity
from wikistream_assets.alerts.kinds import KINDS
from wikistream_assets.embedded.home import user_key
from wikistream_assets.settings import Settings
from wikistream_assets_tests.alerts.servers import Inbox, http_server
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, free_port

pytestmark = pytest.mark.local

DOCUMENT = Path(__file__).parents[2] / "docs" / "ALERTS.md"
CHECK = "silver.cleaned_events.user_not_null"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slack() -> Iterator[Inbox]:
    with http_server() as inbox:
        yield inbox


@pytest.fixture
def slack_settings(settings_factory: SettingsFactory) -> Callable[..., Settings]:
    def make(port: int, **fields: object) -> Settings:
        return settings_factory(
            alert_routes={"*": ("log", "slack")},
            alert_slack_webhook_url=f"http://127.0.0.1:{port}/services/T0/B0/topsecret",
            **fields,
        )

    return make


def failed(subject: str = CHECK, message: str = "3 rows have no user", **fields: Any) -> Alert:
    return Alert(AlertKind.GATE_FAILED, subject, message, **fields)


def log_lines(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (settings.root / "logs" / "alerts.jsonl").read_text().splitlines()]


def titles(inbox: Inbox) -> list[str]:
    return [json.loads(body)["blocks"][0]["text"]["text"] for body in inbox.bodies]


def test_fired_repeated_cleared(slack_settings: Callable[..., Settings], slack: Inbox, clock: Clock) -> None:
    alerts = Alerts(settings := slack_settings(slack.port, alert_repeat_minutes=60), clock)
    for _ in range(3):
        alerts.fire(failed())
        alerts.deliver()
    clock.now += 3600
    alerts.fire(failed())
    alerts.deliver()
    alerts.clear(AlertKind.GATE_FAILED, CHECK, "it passed")
    alerts.clear(AlertKind.GATE_FAILED, CHECK, "it passed")
    alerts.deliver()
    events = [(line["event"], line["count"], line["message"]) for line in log_lines(settings)]
    assert events == [
        ("fired", 1, "3 rows have no user"),
        ("repeated", 4, "3 rows have no user"),
        ("cleared", 4, "it passed"),
    ]
    assert titles(slack) == [
        f"[ERROR] FIRED gate_failed: {CHECK}",
        f"[ERROR] REPEATED gate_failed: {CHECK} (x4)",
        f"[OK] CLEARED gate_failed: {CHECK}",
    ]
    assert alerts.open_alerts() == []


def test_what_stays_open_is_said_again_though_nobody_fires_it(settings: Settings, clock: Clock) -> None:
    alerts = Alerts(settings.model_copy(update={"alert_repeat_minutes": 60}), clock)
    began = clock.now
    alerts.fire(failed())
    for minutes in (59, 60, 61, 119, 120):
        clock.now = began + 60 * minutes
        alerts.deliver()
    alerts.clear(AlertKind.GATE_FAILED, CHECK)
    clock.now += 7200
    alerts.deliver()
    lines = [(line["event"], line["at"][11:16]) for line in log_lines(settings)]
    times = [datetime.fromtimestamp(began + 60 * minutes, UTC).strftime("%H:%M") for minutes in (0, 60, 120, 120)]
    assert lines == list(zip(["fired", "repeated", "repeated", "cleared"], times, strict=True))


def test_what_becomes_worse_is_said_at_once(settings: Settings, clock: Clock) -> None:
    alerts = Alerts(settings, clock)
    for severity in (Severity.WARNING, Severity.WARNING, Severity.ERROR, Severity.WARNING):
        alerts.fire(failed(severity=severity))
    assert [line["severity"] for line in log_lines(settings)] == ["WARNING", "ERROR"]


def test_the_same_words_of_the_same_run_are_one_firing(settings: Settings) -> None:
    alerts = Alerts(settings)
    for run in ("run1", "run1", "run2"):
        alerts.fire(failed(run_id=run))
    (opened,) = alerts.open_alerts()
    assert (opened.count, opened.notice.run_id) == (2, "run2")


def test_news_is_told_once_and_never_open(settings: Settings) -> None:
    alerts = Alerts(settings)
    for user in ("Ann", "Ann", "Bob"):
        alerts.fire(Alert(AlertKind.HIGH_RISK_USER, f"2026-03-02/{user}", "is risky"))
        alerts.clear(AlertKind.HIGH_RISK_USER, f"2026-03-02/{user}")
    assert [line["subject"] for line in log_lines(settings)] == ["2026-03-02/Ann", "2026-03-02/Bob"]
    assert alerts.open_alerts() == []


def test_a_channel_that_is_down_gets_everything_later_in_order(
    slack_settings: Callable[..., Settings], clock: Clock
) -> None:
    port = free_port()
    alerts = Alerts(settings := slack_settings(port), clock)
    alerts.fire(failed())
    assert alerts.deliver().waiting == {"slack": 1}
    alerts.clear(AlertKind.GATE_FAILED, CHECK, "it passed")
    assert alerts.deliver().problems == [], "it is left alone until its time has come"
    clock.now += 5
    assert alerts.deliver().problems == ["Slack at 127.0.0.1: ConnectionError"]
    state = alerts.channel_states()["slack"]
    assert state.failures == 2
    assert 5 <= state.retry_at - clock.now <= 10
    with http_server(port) as inbox:
        clock.now += 10
        delivery = Alerts(settings, clock).deliver()
        assert (delivery.sent, delivery.waiting) == ({"slack": 2}, {})
        assert [title.split()[1] for title in titles(inbox)] == ["FIRED", "CLEARED"]
    assert alerts.channel_states()["slack"].failures == 0


def test_what_cannot_be_sent_is_given_up_with_a_line_in_the_log(
    slack_settings: Callable[..., Settings], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    alerts = Alerts(slack_settings(free_port(), alert_expiry_hours=24, alert_repeat_minutes=100_000), clock)
    alerts.fire(failed())
    clock.now += 24 * 3600
    assert alerts.deliver().expired == 0
    clock.now += 1
    caplog.clear()
    delivery = alerts.deliver()
    assert (delivery.expired, delivery.waiting) == (1, {})
    assert f"given up on slack after 24 h: [ERROR] FIRED gate_failed: {CHECK}" in caplog.text


def test_a_refused_notice_does_not_hold_up_the_others(
    slack_settings: Callable[..., Settings], slack: Inbox, clock: Clock
) -> None:
    alerts = Alerts(slack_settings(slack.port), clock)
    alerts.fire(failed("a.b.c"))
    slack.status = 400
    assert alerts.deliver().problems == ["Slack at 127.0.0.1 answered 400"]
    slack.status = 200
    alerts.fire(failed("d.e.f"))
    assert alerts.deliver().sent == {"slack": 1}
    assert "d.e.f" in titles(slack)[-1]
    clock.now += 5
    assert alerts.deliver().sent == {"slack": 1}
    assert "a.b.c" in titles(slack)[-1]


@pytest.mark.parametrize(("asked", "seconds"), [("120", 120), ("901", 900), ("inf", 900)])
def test_slack_is_left_alone_for_as_long_as_it_asks_but_not_for_ever(
    slack_settings: Callable[..., Settings], slack: Inbox, clock: Clock, asked: str, seconds: int
) -> None:
    alerts = Alerts(slack_settings(slack.port), clock)
    alerts.fire(failed())
    slack.status, slack.headers = 429, {"Retry-After": asked}
    alerts.deliver()
    slack.status = 200
    clock.now += seconds - 1
    assert alerts.deliver().sent == {}
    clock.now += 1
    assert alerts.deliver().sent == {"slack": 1}


def test_too_many_are_summed_up_and_none_is_lost(
    slack_settings: Callable[..., Settings], slack: Inbox, clock: Clock
) -> None:
    alerts = Alerts(settings := slack_settings(slack.port, alert_rate_per_minute=5), clock)
    for number in range(30):
        alerts.fire(failed(f"table.check{number:02d}"))
    assert alerts.deliver().sent == {"slack": 5}
    assert alerts.waiting() == {}
    assert [title.split(": ")[1] for title in titles(slack)[:4]] == [f"table.check{number:02d}" for number in range(4)]
    assert titles(slack)[4] == "[ERROR] DIGEST digest: 26 alerts"
    assert "26 gate_failed fired" in json.loads(slack.bodies[4])["blocks"][1]["text"]["text"]
    assert len(log_lines(settings)) == 30
    alerts.fire(failed("one.more"))
    clock.now += 59
    assert alerts.deliver().sent == {}
    clock.now += 1
    assert alerts.deliver().sent == {"slack": 1}


def test_kinds_go_where_the_routes_say(settings_factory: SettingsFactory, slack: Inbox) -> None:
    settings = settings_factory(
        alert_routes={"lag": ("slack",), "freshness": ("log", "slack"), "*": ("log",)},
        alert_slack_webhook_url=slack.url,
    )
    alerts = Alerts(settings)
    assert {kind: alerts.channels_for(kind) for kind in ("lag", "freshness", "run_failed")} == {
        "lag": ("log", "slack"),
        "freshness": ("log", "slack"),
        "run_failed": ("log",),
    }


def test_all_processes_see_the_same_alerts(settings: Settings) -> None:
    alerts = Alerts(settings)
    alerts.fire(failed())
    code = (
        "from wikistream_assets.alerts import Alert, Alerts\n"
        "from wikistream_assets.settings import load_settings\n"
        "alerts = Alerts(load_settings())\n"
        f"assert alerts.is_open('gate_failed', '{CHECK}')\n"
        f"alerts.fire(Alert('gate_failed', '{CHECK}', 'again'))\n"
        "for number in range(25): alerts.fire(Alert('lag', f'topic{number}', 'm'))\n"
    )
    environment = child_environment(settings)
    children = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    for number in range(25):
        alerts.fire(Alert("lag", f"topic{number}", "m"))
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    counts = {opened.notice.subject: opened.count for opened in alerts.open_alerts()}
    assert counts == {CHECK: 3} | {f"topic{number}": 3 for number in range(25)}
    lines = log_lines(settings)
    assert sorted(line["subject"] for line in lines) == sorted(counts), "each was said once, by whoever came first"


def test_a_store_that_cannot_be_used_does_not_stop_the_work(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.root.mkdir()
    (settings.root / "alerts.db").write_bytes(b"this is no database, but long enough to be read as the head of one" * 9)
    alerts = Alerts(settings)
    alerts.fire(failed())
    alerts.clear(AlertKind.GATE_FAILED, CHECK)
    assert "was not kept" in caplog.text
    assert "3 rows have no user" in caplog.text, "the alert itself is in the log"


def test_a_log_that_cannot_be_written_is_written_later_in_order(settings: Settings, clock: Clock) -> None:
    alerts = Alerts(settings, clock)
    alerts.fire(failed("first"))
    log = settings.root / "logs" / "alerts.jsonl"
    log.rename(log.with_name("moved"))
    log.mkdir()
    for name in ("second", "third"):
        alerts.fire(failed(name))
    assert alerts.waiting() == {"log": 2}
    log.rmdir()
    log.with_name("moved").rename(log)
    alerts.deliver()
    assert [line["subject"] for line in log_lines(settings)] == ["first", "second", "third"]


def test_old_lines_of_the_log_are_forgotten(settings: Settings, clock: Clock) -> None:
    alerts = Alerts(settings, clock)
    log = settings.root / "logs" / "alerts.jsonl"
    for name in ("moved", "old", "young"):
        alerts.fire(failed(name))
        clock.now += 86_400
        if name == "moved":
            log.rename(log.with_name("alerts.jsonl.1"))
    at = log_lines(settings)[1]["at"][:10]
    whole = log.read_text()
    old, young = whole.splitlines(keepends=True)
    log.write_text(old + '{"event": "fir\n' + young + '{"event"')  # cut short, as a full disk or a crash leaves it
    log.chmod(0o640)
    assert alerts.forget("") == 0, "names are kept for ever"
    assert alerts.forget(at, dry_run=True) == 3
    assert alerts.forget(at) == 3
    assert log.read_text() == young + '{"event"'
    assert log.with_name("alerts.jsonl.1").read_text() == ""
    assert log.stat().st_mode & 0o777 == 0o640
    assert alerts.forget(at) == 0


def test_whom_alerts_have_named_is_forgotten_by_the_users_day(settings: Settings, clock: Clock) -> None:
    today = datetime.fromtimestamp(clock.now, UTC).date().isoformat()
    alerts = Alerts(settings, clock)
    for day in ("2024-03-01", today):
        alerts.fire(Alert(AlertKind.HIGH_RISK_USER, f"{day}/Ann", "is risky"))
    alerts.forget("2024-03-02")
    assert [line["subject"] for line in log_lines(settings)] == [f"{today}/Ann"]
    names = sqlite3.connect(settings.root / "alerts.db").execute("SELECT subject FROM told").fetchall()
    assert names == [(f"{today}/Ann",)]


def test_what_has_been_open_for_so_long_goes_on_without_keys(settings: Settings, clock: Clock) -> None:
    alerts = Alerts(settings, clock)
    alerts.fire(failed("old", details={"failing_keys": ["2024-03-01/Ann"]}))
    clock.now += 86_400
    alerts.fire(failed("young", details={"failing_keys": ["2024-03-01/Ann"]}))
    alerts.forget(datetime.fromtimestamp(clock.now, UTC).date().isoformat())
    keys = {opened.notice.subject: opened.notice.details for opened in alerts.open_alerts()}
    assert keys == {"old": {}, "young": {"failing_keys": ["2024-03-01/Ann"]}}


def test_a_clock_that_is_set_back_does_not_use_up_the_rate(
    slack_settings: Callable[..., Settings], slack: Inbox, clock: Clock
) -> None:
    alerts = Alerts(slack_settings(slack.port, alert_rate_per_minute=1), clock)
    alerts.fire(failed("before"))
    alerts.deliver()
    clock.now -= 3600
    alerts.fire(failed("after"))
    alerts.deliver()
    assert [title.split()[-1] for title in titles(slack)] == ["before", "after"]


def test_addresses_leave_only_as_the_hash_that_gold_has(settings: Settings) -> None:
    import hashlib
    import hmac

    alerts = Alerts(settings)
    text = "value '203.0.113.9' of 2001:db8::7 breaks 127.0.0.1:19092, ends with 203.0.113.9. At 12:30:59"
    alerts.fire(failed(message=text, details={"failing_keys": ["203.0.113.9", 7]}))
    key = user_key(settings)
    hashes = {
        name: "ip-" + hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:16]
        for name in ("203.0.113.9", "2001:db8::7")
    }
    expected = text
    for name, hashed in hashes.items():
        expected = expected.replace(name, hashed)
    (line,) = log_lines(settings)
    assert line["message"] == expected
    assert line["details"] == {"failing_keys": [hashes["203.0.113.9"], 7]}


def test_log_says_it_in_one_printable_line(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Alerts(settings).fire(failed(message="evil\x1b[2J\nERROR forged"))
    (record,) = caplog.records
    assert record.getMessage() == f"[ERROR] FIRED gate_failed: {CHECK}: evil\\x1b[2J\\nERROR forged"


def test_every_kind_says_what_to_do() -> None:
    assert set(KINDS) == set(AlertKind)
    with pytest.raises(ValueError, match="no_such_kind"):
        Alert("no_such_kind", "x", "y")


def test_the_document_lists_every_kind_as_the_code_has_it() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for kind, info in KINDS.items():
        assert f"| `{kind}` | {info.subject} | {info.means} | {info.remedy} |" in rows
