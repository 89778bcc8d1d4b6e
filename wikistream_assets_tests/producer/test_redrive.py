"""What needs no broker: the notes of what has been dealt with, and the fate of a letter."""

import json

import pytest

from producer.contract import Reason
from producer.redrive import DealtWith, Fate, Judge, Letter, Place, is_redrivable
from producer.settings import ProducerSettings
from producer.topics import DLQ_EVENTS, MAX_MESSAGE_BYTES, RAW_EVENTS
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = pytest.mark.unit


def letter(original: bytes, *, topic: str = DLQ_EVENTS, attempts: int = 0, mode: str | None = "live") -> Letter:
    return Letter(Place(topic, 0, 7), attempts, mode, original)


def test_notes_survive_the_way_through_kafka() -> None:
    places = [Place(DLQ_EVENTS, 0, offset) for offset in (0, 1, 65_535, 65_536, 10_000_000)] + [Place(RAW_EVENTS, 2, 1)]
    dealt_with = DealtWith({})
    records = dealt_with.added(places)
    assert len(records) == 4  # one for each topic, partition and block of offsets
    again = DealtWith({record.key or b"": record.value for record in records})
    assert all(place in again for place in places)
    assert not any(
        place in again
        for place in [
            Place(DLQ_EVENTS, 0, 2),
            Place(DLQ_EVENTS, 1, 0),
            Place(RAW_EVENTS, 2, 0),
            Place(RAW_EVENTS, 0, 1),
            Place(DLQ_EVENTS, 0, 0, generation=1),
        ]
    )


def test_a_block_that_is_full_is_a_small_record() -> None:
    (record,) = DealtWith({}).added([Place(DLQ_EVENTS, 0, offset) for offset in range(65_536)])
    assert json.loads(record.value)["letters"] == 65_536
    assert len(record.value) < 12_000 < MAX_MESSAGE_BYTES


def test_only_changed_blocks_are_written_again() -> None:
    dealt_with = DealtWith({})
    dealt_with.added([Place(DLQ_EVENTS, 0, 0), Place(DLQ_EVENTS, 0, 70_000)])
    (record,) = dealt_with.added([Place(DLQ_EVENTS, 0, 5)])
    assert record.key == b"redrive:dlq-events:0:0"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_of_the_contract_can_be_judged_again(reason: Reason) -> None:
    assert is_redrivable(reason.value)


@pytest.mark.parametrize("reason", ["unreadable_envelope", "broker_down", ""])
def test_what_happened_on_the_way_is_never_redriven(reason: str) -> None:
    assert not is_redrivable(reason)


def test_accepted_keeps_line_and_mode_and_counts_the_attempt() -> None:
    fate, record = Judge(ProducerSettings()).judge(letter(line().encode(), attempts=1))
    assert fate is Fate.ACCEPTED
    assert record is not None
    assert (record.topic, record.key) == (RAW_EVENTS, ID.encode())
    value = json.loads(record.value)
    assert value["data"] == line()
    assert (value["_processing"]["source_mode"], value["_processing"]["attempts"]) == ("live", 2)


def test_an_envelope_is_opened() -> None:
    """A letter of raw-events is the producer's record, and the line stands in it."""
    envelope = json.dumps({"id": ID, "data": line(), "_processing": {}}).encode()
    fate, record = Judge(ProducerSettings()).judge(letter(envelope, topic=RAW_EVENTS, mode=None))
    assert fate is Fate.ACCEPTED
    assert record is not None
    assert json.loads(record.value)["data"] == line()
    assert json.loads(record.value)["_processing"]["source_mode"] == "replay"


@pytest.mark.parametrize("original", [b"?", b"{'data': 'single quotes'}", b"[]", b'{"data":{"meta":1}}', b"\xff", b""])
def test_what_is_no_line_is_a_letter_again(original: bytes) -> None:
    fate, record = Judge(ProducerSettings()).judge(letter(original, topic=RAW_EVENTS, attempts=2))
    assert fate is Fate.REJECTED
    assert record is not None
    assert (record.topic, json.loads(record.value)["attempts"]) == (DLQ_EVENTS, 3)


def test_what_is_not_followed_goes_nowhere() -> None:
    judge = Judge(ProducerSettings())
    assert judge.judge(letter(line(meta_domain="xx.wikipedia.org").encode())) == (Fate.SKIPPED, None)
    assert judge.judge(letter(line(meta_domain="canary").encode())) == (Fate.SKIPPED, None)
