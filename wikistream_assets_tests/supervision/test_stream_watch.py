"""A stuck stream is told from a quiet one, restarted further and further apart, and given up loudly."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from producer.cursor import RecordedGap
from producer.position import Gap
from wikistream_assets.alerts import Alert, AlertKind, Alerts, store
from wikistream_assets.defs.ops.stream import STREAM, watch
from wikistream_assets.settings import Settings
from wikistream_assets.supervision.stream_control import StreamState
from wikistream_assets.supervision.stream_watch import Memory, Seen, Verdict, judge, remember

pytestmark = pytest.mark.unit

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SETTINGS = Settings(bronze_stall_seconds=60, stream_restart_tries=3, source_silent_seconds=600)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def running(instance: str = "1:0", since: float = -3600, died: float | None = None) -> StreamState:
    return StreamState(True, instance, at(since), None if died is None else at(died), "RUNNING")


def seen(seconds: float, **changes: Any) -> Seen:
    """A look at a stream that has just committed and has nothing to do."""
    now = at(seconds)
    calm = Seen(now, snapshot_id=1, committed_at=now, lag=False, source_at=now, stream=running())
    return replace(calm, **changes)


def verdict(*looks: Seen) -> Verdict:
    memory = Memory()
    for look in looks:
        memory = remember(memory, look)
    return judge(memory, looks[-1], SETTINGS)


def test_fresh_quiet_and_silent_are_three_things() -> None:
    old = at(-3600)
    assert verdict(seen(0)) is Verdict.FRESH
    assert verdict(seen(0, committed_at=old)) is Verdict.QUIET, "the source sends, only nothing for us"
    assert verdict(seen(0, committed_at=old, source_at=at(-601))) is Verdict.SOURCE_SILENT


def test_records_that_wait_without_a_commit_make_it_stalled() -> None:
    assert verdict(seen(0, lag=True), seen(59, lag=True)) is Verdict.FRESH
    assert verdict(seen(0, lag=True), seen(60, lag=True)) is Verdict.STALLED


def test_after_a_long_silence_the_first_record_does_not_make_it_stalled() -> None:
    assert verdict(seen(0, committed_at=at(-3600), lag=True)) is Verdict.FRESH


def test_a_stream_that_is_behind_but_commits_is_not_stalled() -> None:
    looks = [seen(second, lag=True, snapshot_id=second) for second in range(0, 600, 30)]
    assert verdict(*looks) is Verdict.FRESH


def test_a_stream_that_has_just_been_started_is_given_time() -> None:
    looks = (seen(0, lag=True), seen(61, lag=True, stream=running("2:0", since=30)))
    assert verdict(*looks) is Verdict.FRESH


def test_where_no_stream_is_kept_nothing_is_judged() -> None:
    none = StreamState(False, None, None, None, "no supervisord")
    assert verdict(seen(0, lag=True, stream=none), seen(600, lag=True, stream=none)) is Verdict.UNMANAGED


def test_memory_survives_as_json() -> None:
    memory = Memory(
        1, 2, NOON, instance="1:0", revived_at=NOON, tries=3, tried_at=NOON, given_up=True, reported_at=NOON
    )
    kept = memory.as_json()
    assert Memory.from_json(kept) == memory
    del kept["reported_at"]
    assert Memory.from_json(kept) == replace(memory, reported_at=None), "an older version did not know it"


class Keeper:
    """A keeper whose stream never gets better; the real one is tested with supervisord in embedded/test_stream_control.py."""

    def __init__(self) -> None:
        self.restarts: list[str | None] = []

    def state(self) -> StreamState:
        return running(f"{len(self.restarts) + 1}:0")

    def restart(self, instance: str | None) -> bool:
        self.restarts.append(instance)
        return True


@pytest.fixture
def alerts(settings: Settings) -> Alerts:
    return Alerts(settings)


def test_restarts_come_further_apart_and_end_loudly(alerts: Alerts) -> None:
    keeper, memory = Keeper(), Memory()
    restarted: list[int] = []
    for second in range(0, 3600, 5):
        before = len(keeper.restarts)
        look = seen(second, lag=True, committed_at=at(-60), stream=replace(keeper.state(), since=at(-3600)))
        memory, _ = watch(remember(memory, look), look, keeper, alerts, SETTINGS)
        restarted += [second] * (len(keeper.restarts) - before)
    pauses = [later - earlier for earlier, later in pairwise(restarted)]
    assert keeper.restarts == ["1:0", "2:0", "3:0"]
    assert restarted[0] == 60
    assert pauses == [120, 240]
    assert memory.given_up
    assert alerts.is_open(AlertKind.STREAM_GIVEN_UP, STREAM)

    well = seen(4000, committed_at=at(3990))
    memory, _ = watch(remember(memory, well), well, keeper, alerts, SETTINGS)
    assert (memory.tries, memory.given_up) == (0, False)
    assert not alerts.is_open(AlertKind.STREAM_GIVEN_UP, STREAM)
    assert not alerts.is_open(AlertKind.STREAM_RESTARTED, STREAM)


def test_a_restart_that_somebody_else_made_is_not_counted(alerts: Alerts) -> None:
    class Beaten(Keeper):
        def restart(self, instance: str | None) -> bool:
            return False

    memory = Memory()
    for second in (0, 60):
        look = seen(second, lag=True)
        memory, _ = watch(remember(memory, look), look, Beaten(), alerts, SETTINGS)
    assert memory.tries == 0
    assert not alerts.is_open(AlertKind.STREAM_RESTARTED, STREAM)


def watched(alerts: Alerts, *looks: Seen) -> Memory:
    memory = Memory()
    for look in looks:
        memory, _ = watch(remember(memory, look), look, Keeper(), alerts, SETTINGS)
    return memory


def test_a_stream_that_died_and_was_started_again_is_told_until_it_commits(alerts: Alerts) -> None:
    alive, gone = seen(0), seen(5, committed_at=NOON, stream=StreamState(False, None, at(3), None, "BACKOFF"))
    back = seen(10, committed_at=NOON, lag=True, stream=running("2:0", since=6, died=3))
    later = replace(back, now=at(15))
    watched(alerts, alive, gone, back, later)
    (opened,) = alerts.open_alerts()
    assert (opened.notice.kind, opened.notice.subject, opened.count) == ("stream_restarted", STREAM, 1)
    assert opened.notice.message == f"the stream died at {at(3)} and was started again"
    memory = watched(alerts, alive, gone, back, later, replace(later, now=at(30), committed_at=at(29), snapshot_id=2))
    assert alerts.open_alerts() == []
    assert (memory.instance, memory.revived_at) == ("2:0", None)


def test_a_stream_that_was_started_on_purpose_is_no_news(alerts: Alerts) -> None:
    watched(alerts, seen(0), seen(5, stream=running("2:0", since=3)))
    watched(alerts, seen(5, stream=running("2:0", since=3, died=1)))
    assert alerts.open_alerts() == [], "a first instance, and one that was there before anyone looked"


def test_a_stream_that_the_sensor_restarted_is_told_once(alerts: Alerts) -> None:
    stuck = [seen(second, committed_at=at(-5), lag=True) for second in (0, 60)]
    back = seen(65, committed_at=at(-5), lag=True, stream=running("2:0", since=62, died=61))
    watched(alerts, *stuck, back)
    (opened,) = alerts.open_alerts()
    assert "restarted it, try 1 of 3" in opened.notice.message
    assert opened.count == 1


def test_a_stream_that_dies_as_often_as_it_is_started_is_given_up(alerts: Alerts) -> None:
    lives = [
        seen(
            10 * life,
            committed_at=at(-60),
            lag=True,
            stream=running(f"{life + 1}:0", since=10 * life - 1, died=10 * life - 2),
        )
        for life in range(1, 7)
    ]
    memory, tries = Memory(), []
    for look in (seen(0, committed_at=at(-60)), *lives):
        memory, _ = watch(remember(memory, look), look, Keeper(), alerts, SETTINGS)
        tries.append((memory.tries, memory.given_up))
    assert tries[:5] == [(0, False), (0, False), (1, False), (2, False), (3, True)]
    given_up = next(one for one in alerts.open_alerts() if one.notice.kind == "stream_given_up")
    assert given_up.count == 1
    assert "3 restarts did not help" in given_up.notice.message
    well = seen(100, committed_at=at(99), snapshot_id=2, stream=lives[-1].stream)
    memory, _ = watch(remember(memory, well), well, Keeper(), alerts, SETTINGS)
    assert (memory.tries, memory.given_up) == (0, False)
    assert alerts.open_alerts() == []


def test_what_a_lost_memory_left_open_is_cleared_by_a_commit_of_the_running_stream(alerts: Alerts) -> None:
    for kind in (AlertKind.STREAM_RESTARTED, AlertKind.STREAM_GIVEN_UP):
        alerts.fire(Alert(kind, STREAM, "before Dagster's database was restored"))
    young = running("2:0", since=0)
    watched(alerts, seen(10, committed_at=at(-1), lag=True, stream=young), seen(15, committed_at=at(-1), stream=young))
    assert len(alerts.open_alerts()) == 2, "that commit was made by the process before"
    watched(alerts, seen(20, committed_at=at(19), stream=young))
    assert alerts.open_alerts() == []


def test_a_source_that_never_sent_anything_is_silent_in_the_end(alerts: Alerts) -> None:
    started = running(since=0)
    nothing = {"source_at": None, "committed_at": None, "snapshot_id": None, "stream": started}
    assert verdict(seen(599, **nothing)) is Verdict.QUIET
    assert verdict(seen(600, **nothing)) is Verdict.SOURCE_SILENT
    watched(alerts, seen(600, **nothing))
    (opened,) = alerts.open_alerts()
    assert opened.notice.message.startswith("the producer has received nothing yet, not even a canary")


def test_each_gap_of_the_source_is_told_once(settings: Settings, alerts: Alerts) -> None:
    gaps = tuple(RecordedGap(Gap(f"[{n}]", f"[{n + 1}]"), at(n).isoformat()) for n in range(3))
    memory, tick = Memory(), 0
    for kept, total in ((gaps[:1], 1), (gaps[:1], 1), (gaps[1:], 3), ((), 0), (gaps[:1], 1)):
        tick += 5
        look = seen(tick, gaps=kept, gaps_total=total)
        memory, _ = watch(remember(memory, look), look, Keeper(), alerts, SETTINGS)
    assert memory.gaps_told == 1, "the last two looks are at another source"
    log = (settings.root / "logs" / "alerts.jsonl").read_text().splitlines()
    told = [(line["kind"], line["subject"], line["details"]["after"]) for line in map(json.loads, log)]
    assert told == [("source_gap", at(n).isoformat(), f"[{n}]") for n in range(3)]


def test_a_gap_that_could_not_be_written_down_is_told_later(
    settings: Settings, alerts: Alerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BUSY_SECONDS", 0.1)
    assert not alerts.is_open(AlertKind.SOURCE_SILENT, STREAM)  # makes the store
    look = seen(0, gaps=(RecordedGap(Gap("[0]", "[1]"), at(0).isoformat()),), gaps_total=1)
    with closing(sqlite3.connect(settings.root / "alerts.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        memory, _ = watch(Memory(), look, Keeper(), alerts, SETTINGS)
    assert memory.gaps_told == 0
    memory, _ = watch(memory, look, Keeper(), Alerts(settings), SETTINGS)
    assert memory.gaps_told == 1
    (line,) = (settings.root / "logs" / "alerts.jsonl").read_text().splitlines()
    assert json.loads(line)["kind"] == "source_gap"


def test_a_silent_source_is_told_and_cleared(alerts: Alerts) -> None:
    keeper = Keeper()
    silent = seen(0, source_at=at(-700), committed_at=at(-700))
    again = seen(30, lag=True)  # of a lively source something waits at every look
    watch(Memory(), silent, keeper, alerts, SETTINGS)
    assert alerts.is_open(AlertKind.SOURCE_SILENT, STREAM)
    watch(remember(Memory(), again), again, keeper, alerts, SETTINGS)
    assert not alerts.is_open(AlertKind.SOURCE_SILENT, STREAM)
    assert keeper.restarts == []
