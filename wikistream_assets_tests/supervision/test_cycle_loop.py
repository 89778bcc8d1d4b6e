"""When the next cycle is due."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wikistream_assets.settings import Settings
from wikistream_assets.supervision.cycle_loop import Ended, Last, due

pytestmark = pytest.mark.unit

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LOCAL, SOURCE = Settings(), Settings(profile="source")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def key(settings: Settings = LOCAL, **changes: Any) -> str | None:
    facts: dict[str, Any] = {"running": None, "last": None, "first_data_at": ago(86_400), "pending": True}
    return due(NOW, **{**facts, **changes}, settings=settings).key


def ended(how: Ended, seconds_ago: float) -> Last:
    return Last("0815", how, ago(seconds_ago))


def test_nothing_starts_before_there_is_data() -> None:
    assert key(first_data_at=None) is None


@pytest.mark.parametrize(("settings", "wait"), [(LOCAL, 5), (SOURCE, 900)])
def test_the_first_cycle_waits_for_data_to_gather(settings: Settings, wait: int) -> None:
    assert key(settings, first_data_at=ago(wait - 1)) is None
    assert key(settings, first_data_at=ago(wait)) == "cycle-first"


@pytest.mark.parametrize(("settings", "pause"), [(LOCAL, 5), (SOURCE, 600)])
def test_the_next_one_follows_after_a_pause(settings: Settings, pause: int) -> None:
    assert key(settings, last=ended(Ended.PASSED, pause - 1)) is None
    assert key(settings, last=ended(Ended.PASSED, pause)) == "cycle-after-0815"


def test_a_killed_cycle_is_followed_like_one_that_passed() -> None:
    assert key(last=ended(Ended.KILLED, 4)) is None
    assert key(last=ended(Ended.KILLED, 5)) == "cycle-after-0815"


def test_a_cycle_never_overlaps_another() -> None:
    assert key(last=ended(Ended.PASSED, 3600), running="4711") is None


def test_behind_a_closed_gate_auditing_goes_on_unless_the_profile_stops() -> None:
    assert key(last=ended(Ended.BLOCKED, 59)) is None
    assert key(last=ended(Ended.BLOCKED, 60)) == "cycle-after-0815"
    assert key(SOURCE, last=ended(Ended.BLOCKED, 86_400)) is None


@pytest.mark.parametrize("settings", [LOCAL, SOURCE])
def test_behind_a_broken_step_a_person_is_waited_for(settings: Settings) -> None:
    decision = due(
        NOW, running=None, last=ended(Ended.BROKEN, 86_400), first_data_at=NOW, pending=True, settings=settings
    )
    assert decision.key is None
    assert "start 'cycle' by hand" in decision.why


def test_without_news_nothing_starts() -> None:
    assert key(last=ended(Ended.PASSED, 3600), pending=False) is None
