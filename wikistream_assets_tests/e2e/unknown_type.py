"""An event that closes the Bronze gate: its type is none that the rule ``event_type_valid`` knows.

It is also dated after the producer's receipt of it, of which ``no_future_timestamps`` warns.
"""

import json
from datetime import UTC, datetime

from producer.topics import RAW_EVENTS
from wikistream_assets.embedded import services
from wikistream_assets.settings import Settings
from wikistream_assets_tests.kafka_records import Message, envelope, produce

EVENT_ID = "11111111-2222-4333-8444-555555555555"


def unknown_type(event_id: str = EVENT_ID) -> Message:
    """The event as a record for Kafka, past the producer, which knows types only as names."""
    event = {
        "$schema": "/mediawiki/recentchange/1.0.0",
        "meta": {"id": event_id, "domain": "en.wikipedia.org", "dt": "2026-03-03T10:00:00Z"},
        "type": "flow!",
        "timestamp": int(datetime(2026, 3, 3, 10, tzinfo=UTC).timestamp()),
        "user": "Ada",
        "bot": False,
        "title": "Tea",
    }
    return Message(RAW_EVENTS, envelope().event_value(event_id, json.dumps(event)), event_id)


def send_an_unknown_type(settings: Settings, event_id: str = EVENT_ID) -> None:
    """Put it into Kafka; the broker is started and stopped for it."""
    services.up(settings)
    try:
        produce(settings.bootstrap_servers, [unknown_type(event_id)])
    finally:
        services.down(settings)
