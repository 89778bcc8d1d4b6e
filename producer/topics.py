"""Names and limits of the Kafka topics, the contract between the producer and everything that reads from it."""

from typing import Final

RAW_EVENTS = "raw-events"
"""Accepted events, key = event id, value = ``envelope.event_value``."""

DLQ_EVENTS = "dlq-events"
"""Rejected frames with their original bytes, the reason class and the time: ``envelope.rejected_value``."""

EVENT_TOPICS: Final = (RAW_EVENTS, DLQ_EVENTS)
"""What Bronze reads."""

SSE_CURSOR = "sse-cursor"
"""Compacted: one position per source identity, committed in the same transaction as the events it covers."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""The clients' own limit, ``message.max.bytes``: above that of every topic, so that the topic decides. An event of the size limit
grows when its JSON is quoted into the envelope, a rejected one by a third in base64; the default of 1 MiB would refuse both."""

FETCH_WAIT_MS: Final = 20
"""How long the broker may hold back an answer to a reader who wants what is there and not more. The last offset of a partition is
a transaction's marker, after which there is nothing to send: with Kafka's default, each look at the end would take 500 ms."""
