"""The pace of a recording under a clock of the test's own: what wild times cost, and what they do not."""

import logging

import pytest

from producer.eventstreams.pace import BACK_FOR_GOOD_EVENTS, LONGEST_WAIT_SECONDS, Pace

pytestmark = pytest.mark.unit

NOON_2026 = 1_772_366_400_000
WILD = {
    "2001": 980_985_600_000,
    "before 1970": -1_000_000_000_000,
    "0": 0,
    "2099": 4_070_908_800_000,
    "9999": 253_402_300_799_000,
    "64 bits": (2**63 - 1) * 1000,
    "64 bits back": -(2**63) * 1000,
}


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


def waits(times: list[int], speed: float = 1.0) -> list[float]:
    """The wait before each event for somebody who then waits that long."""
    clock = Clock()
    pace = Pace(clock)
    found = []
    for sent_ms in times:
        found.append(max(0.0, pace.wait_seconds(sent_ms, speed)))
        clock.seconds += found[-1]
    return found


def test_a_recording_keeps_its_times() -> None:
    times = [NOON_2026 + offset for offset in (0, 1_000, 1_500, 1_200, 4_000, 50_000)]
    assert waits(times) == pytest.approx([0, 1, 0.5, 0, 2.5, 46])
    assert waits(times, speed=10) == pytest.approx([0, 0.1, 0.05, 0, 0.25, 4.6])


@pytest.mark.parametrize("wild", WILD.values(), ids=WILD)
@pytest.mark.parametrize("place", [0, 1, 5, 10])
def test_one_wild_time_costs_at_most_one_longest_wait(wild: int, place: int, caplog: pytest.LogCaptureFixture) -> None:
    """Also as the first event, on which a clock that trusts it would be built."""
    times = [NOON_2026 + 1_000 * second for second in range(300)]
    times.insert(place, wild)
    with caplog.at_level(logging.WARNING):
        found = waits(times)
    assert max(found) <= LONGEST_WAIT_SECONDS
    assert sum(found) <= 299 + LONGEST_WAIT_SECONDS
    # the rest keeps its pace: at the end each event is a second behind the one before it
    assert found[-150:] == pytest.approx([1.0] * 150)
    assert 1 <= len(caplog.records) <= 2 or wild < NOON_2026


def test_a_leap_is_logged_with_the_time_of_the_event(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert waits([980_985_600_000, NOON_2026]) == [0, LONGEST_WAIT_SECONDS]
    (record,) = caplog.records
    assert "2026-03-01T12:00:00+00:00" in record.getMessage()
    assert "60 s" in record.getMessage()


def test_a_recording_that_goes_back_for_good_keeps_its_pace() -> None:
    later = [NOON_2026 + 1_000 * second for second in range(200)]
    earlier = [time - 86_400_000 for time in later]
    found = waits(later + earlier)
    assert found[200 : 200 + BACK_FOR_GOOD_EVENTS] == [0] * BACK_FOR_GOOD_EVENTS
    assert found[-50:] == pytest.approx([1.0] * 50)


def test_two_interleaved_times_do_not_wait_for_each_other() -> None:
    times = [NOON_2026 + second * 1_000 + (86_400_000 if second % 2 else 0) for second in range(600)]
    assert sum(waits(times)) < 600 + LONGEST_WAIT_SECONDS


def test_who_comes_back_late_catches_up() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.wait_seconds(NOON_2026, 1) == 0
    clock.seconds += 600
    assert all(pace.wait_seconds(NOON_2026 + 1_000 * second, 1) <= 0 for second in range(600))
    assert pace.wait_seconds(NOON_2026 + 610_000, 1) == pytest.approx(10)
    assert pace.wait_seconds(NOON_2026 + 610_000, 1) == pytest.approx(10), "the same event, asked for again after a cut"
