import json

import pytest

from producer.position import RESUME_OVERLAP_MS, Gap, Place, gap_between, parse, resume_id

pytestmark = pytest.mark.unit


def offsets(codfw: int, eqiad: int = -1) -> str:
    return json.dumps(
        [{"topic": "eqiad.x", "partition": 0, "offset": eqiad}, {"topic": "codfw.x", "partition": 0, "offset": codfw}]
    )


def stamps(codfw: int) -> str:
    return json.dumps(
        [{"topic": "eqiad.x", "partition": 0, "offset": -1}, {"topic": "codfw.x", "partition": 0, "timestamp": codfw}]
    )


def test_parse() -> None:
    assert parse(offsets(7)) == {("eqiad.x", 0): Place(offset=-1), ("codfw.x", 0): Place(offset=7)}
    assert parse(stamps(1630070417001)) == {
        ("eqiad.x", 0): Place(offset=-1),
        ("codfw.x", 0): Place(timestamp_ms=1630070417001),
    }


@pytest.mark.parametrize(
    "text", ["", "x", "5", "[5]", '[{"topic":"a","partition":0}]', '[{"topic":"a","offset":1}]', "null"]
)
def test_anything_else_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="not an EventStreams id"):
        parse(text)


def test_resume_keeps_offsets_and_sets_timestamps_back() -> None:
    assert json.loads(resume_id(offsets(7))) == json.loads(offsets(7))
    assert json.loads(resume_id(stamps(1630070417001))) == json.loads(stamps(1630070417001 - RESUME_OVERLAP_MS))


@pytest.mark.parametrize(
    ("last", "first", "gap"),
    [
        (offsets(7), offsets(8), False),
        (offsets(7), offsets(9), True),
        (offsets(7), offsets(7), False),
        (offsets(7), offsets(3), False),
        (offsets(7), offsets(7, eqiad=100), False),
        (offsets(7, eqiad=4), offsets(7, eqiad=6), True),
        (stamps(100_000), stamps(100_000), False),
        (stamps(100_000), stamps(160_000), False),
        (stamps(100_000), stamps(160_001), True),
        (stamps(100_000), stamps(40_000), False),
        (stamps(100_000), offsets(9), False),
        (offsets(7), stamps(10**13), False),
        (offsets(7), json.dumps([{"topic": "new", "partition": 3, "offset": 50}]), False),
    ],
)
def test_gap(last: str, first: str, gap: bool) -> None:
    assert gap_between(last, first, tolerance_ms=60_000) == (Gap(last, first) if gap else None)
