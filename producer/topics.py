"""Names of the Kafka topics, the contract between the producer and everything that reads from it."""

RAW_EVENTS = "raw-events"
"""Accepted events, key = event id, value = the envelope of ``producer.envelope``."""

DLQ_EVENTS = "dlq-events"
"""Rejected frames with their original bytes, the reason class and the time."""

SSE_CURSOR = "sse-cursor"
"""Compacted: one position per source identity, committed in the same transaction as the events it covers."""
