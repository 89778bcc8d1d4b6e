from datetime import UTC, datetime

import pytest

from producer import times
from wikistream_assets_tests.producer.notations import DATE_TIMES
from wikistream_assets_tests.producer.samples import line

pytestmark = pytest.mark.unit

TEXTS = [notation for notation in DATE_TIMES if isinstance(notation, str)]


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_date_and_time_is(text: str) -> None:
    expected = DATE_TIMES[text]
    if expected is None:
        with pytest.raises(ValueError, match=r".") as caught:
            times.parse(text)
        assert str(caught.value).isprintable()
    else:
        assert times.parse(text) == expected
        assert times.parse(text).tzinfo is not None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (line(meta_dt="2026-03-01T12:00:00.123Z", timestamp=5), 1_772_366_400_123),
        (line("meta_dt", timestamp=1_772_366_400), 1_772_366_400_000),
        (line(meta_dt=None, timestamp=1_772_366_400), 1_772_366_400_000),
        (line(meta_dt="9999-12-31T23:59:59-14:00"), 253_402_351_199_000),
        (line(meta_dt="1772366400"), None),
        (line("meta_dt", timestamp="1772366400"), None),
        (line("meta_dt", timestamp=1.5), None),
        (line("meta_dt", timestamp=True), None),
        (line("meta_dt", "timestamp"), None),
        (line(meta=5), None),
        ("[]", None),
        ("{", None),
    ],
)
def test_when_an_event_was_sent(data: str, expected: int | None) -> None:
    assert times.sent_ms(data.encode()) == expected


def test_since_may_be_a_date_or_milliseconds() -> None:
    assert times.parse_since_ms("1772366400123") == 1_772_366_400_123
    assert times.parse_since_ms("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000
    with pytest.raises(ValueError, match="day"):
        times.parse_since_ms("day")
