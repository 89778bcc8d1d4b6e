"""What the cases of Bronze send: known ids, over a few hours, with redeliveries and malformed lines in between."""

from collections.abc import Iterator

from wikistream_assets_tests.kafka_records import Message, event_message, judged
from wikistream_assets_tests.producer.samples import ID, line

EVENTS = 2_000
LETTERS = 40
BATCH_RECORDS = 800


def sent_ids() -> list[str]:
    """The ids of the events, each once, sorted."""
    return [f"id-{number:05d}" for number in range(EVENTS)]


def messages() -> Iterator[Message]:
    """Events over a few hours, each tenth sent twice, with malformed lines in between."""
    sample = line("timestamp", meta_dt="2026-02-03T0HOUR:00:00Z")
    letters = iter(range(LETTERS))
    for number, event_id in enumerate(sent_ids()):
        message = event_message(event_id, sample.replace(ID, event_id).replace("HOUR", str(number // 500)))
        yield message
        if number % 10 == 0:
            yield message
        if number % (EVENTS // LETTERS) == 0:
            yield from judged([b"{malformed %d" % next(letters)])
