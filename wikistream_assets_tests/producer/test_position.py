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


NO_IDS = [
    *("", "x", "5", "null", "true", '"x"', "[]", "{}", "[5]", "[null]", "[[1,2]]", "[" * 2_000),
    '[{"topic":"a","partition":0}]',
    '[{"topic":"a","offset":1}]',
    '[{"topic":null,"partition":0,"offset":1}]',
    '[{"topic":["a"],"partition":0,"offset":1}]',
    '[{"topic":"a","partition":true,"offset":1}]',
    '[{"topic":"a","partition":-1,"offset":1}]',
    '[{"topic":"a","partition":0,"offset":true}]',
    '[{"topic":"a","partition":0,"offset":-2}]',
    '[{"topic":"a","partition":0,"offset":9223372036854775808}]',
    '[{"topic":"a","partition":0,"offset":1,"timestamp":null}]',
    '[{"topic":"a","partition":0,"timestamp":true}]',
    '[{"topic":"a","partition":0,"timestamp":"1630070417001"}]',
    '[{"topic":"a","partition":0,"timestamp":-1630070417001}]',
    '[{"topic":"a","partition":0,"timestamp":999}]',
    '[{"topic":"a","partition":0,"timestamp":253402300800000}]',
    '[{"topic":"a","partition":0,"timestamp":1e300}]',
    '[{"topic":"a","partition":0,"offset":1},5]',
    '[{"topic":"%s","partition":0,"offset":1}]' % ("a" * 8_192),
]


@pytest.mark.parametrize("text", NO_IDS, ids=lambda text: text[:70] or "empty")
def test_anything_else_is_no_position(text: str) -> None:
    for read in (parse, resume_id):
        with pytest.raises(ValueError, match="not an EventStreams id") as refused:
            read(text)
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("text", "resumed"),
    [
        (
            '[{"topic":"a","partition":0,"offset":9223372036854775807}]',
            '[{"topic":"a","partition":0,"offset":9223372036854775807}]',
        ),
        ('[{"topic":"a","partition":0,"timestamp":1000}]', '[{"topic":"a","partition":0,"timestamp":0}]'),
        (
            '[{"topic":"a","partition":0,"timestamp":253402300799999,"offset":7}]',
            '[{"topic":"a","partition":0,"timestamp":253402300798999}]',
        ),
        ('[{"topic":"\u20ac","partition":0,"offset":-1}]', '[{"topic":"\\u20ac","partition":0,"offset":-1}]'),
        (
            '[{"topic":"a","partition":0,"offset":1,"more":%s}]' % ("[" * 300 + "]" * 300),
            '[{"topic":"a","partition":0,"offset":1}]',
        ),
    ],
)
def test_every_position_can_be_sent(text: str, resumed: str) -> None:
    assert parse(text)
    assert resume_id(text) == resumed


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


@pytest.mark.parametrize(("first", "gap"), [(offsets(10), False), (offsets(11), True)])
def test_events_that_came_without_a_position_are_no_gap(first: str, gap: bool) -> None:
    found = gap_between(offsets(7), first, tolerance_ms=0, unplaced=2)
    assert found == (Gap(offsets(7), first) if gap else None)
