"""What the producer writes: the values of ``raw-events`` and ``dlq-events``, as JSON.

``raw-events``, key = event id::

    {"id": string,                      the event's meta.id
     "data": string,                    the event's JSON exactly as received
     "_processing": {
       "ingested_at": string,           when the producer accepted it, ISO 8601 with milliseconds, UTC: 2026-03-01T12:00:00.123Z
       "producer_version": string,
       "environment": string,           WIKISTREAM_ENV
       "source_mode": string,           live, replay or synthetic
       "attempts": int}}                how often it has been redriven as a dead letter before: mostly 0

``dlq-events``, no key::

    {"reason": string,                  a class of ``contract.Reason``
     "detail": string,                  what exactly was wrong, for a person
     "original": string,                the line's bytes, base64
     "rejected_at": string,             as ingested_at
     "attempts": int,                   how often it has been redriven
     "source_mode": string,
     "source": string}                  identity of the source, the key of its cursor

``EVENT_DDL`` and ``REJECTED_DDL`` are the same as Spark DDL, for ``from_json``.
"""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, Literal

import orjson

from producer import __version__
from producer.contract import Rejected

SourceMode = Literal["live", "replay", "synthetic"]

_PROCESSING_DDL = (
    "ingested_at: STRING, producer_version: STRING, environment: STRING, source_mode: STRING, attempts: INT"
)

EVENT_DDL: Final = f"id STRING, data STRING, _processing STRUCT<{_PROCESSING_DDL}>"

REJECTED_DDL: Final = (
    "reason STRING, detail STRING, original STRING, rejected_at STRING, attempts INT, source_mode STRING, source STRING"
)

MAX_ORIGINAL_BYTES: Final = 8 * 1024 * 1024
"""A dead letter keeps at most this much of the original, bytes, so that it fits into a Kafka message; ``detail`` says so then."""


class Envelope:
    """Wraps the lines of one source.

    Args:
        environment: ``WIKISTREAM_ENV``.
        source: identity of the source.
        mode: kind of the source.
        now: the clock.
        attempts: how often these lines have been redriven.
    """

    def __init__(
        self,
        environment: str,
        source: str,
        mode: SourceMode,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        attempts: int = 0,
    ) -> None:
        self._source = source
        self._mode = mode
        self._now = now
        self._attempts = attempts
        # Only the time changes from event to event, so the rest of _processing is rendered once.
        self._tail = b'","producer_version":%b,"environment":%b,"source_mode":%b,"attempts":%d}}' % (
            orjson.dumps(__version__),
            orjson.dumps(environment),
            orjson.dumps(mode),
            attempts,
        )

    def event_value(self, event_id: str, line: str) -> bytes:
        """The ``raw-events`` value of an accepted event; ``data`` parses back to exactly ``line``."""
        return b'{"id":%b,"data":%b,"_processing":{"ingested_at":"%b%b' % (
            orjson.dumps(event_id),
            orjson.dumps(line),
            _iso_ms(self._now()).encode(),
            self._tail,
        )

    def rejected_value(self, rejected: Rejected, original: bytes) -> bytes:
        """The ``dlq-events`` value of a rejected line."""
        detail = rejected.detail
        if len(original) > MAX_ORIGINAL_BYTES:
            digest = sha256(original).hexdigest()
            detail = f"{detail}; kept the first {MAX_ORIGINAL_BYTES} of {len(original)} bytes, SHA-256 {digest}"
        return orjson.dumps(
            {
                "reason": rejected.reason.value,
                "detail": detail,
                "original": b64encode(original[:MAX_ORIGINAL_BYTES]).decode(),
                "rejected_at": _iso_ms(self._now()),
                "attempts": self._attempts,
                "source_mode": self._mode,
                "source": self._source,
            }
        )


def _iso_ms(time: datetime) -> str:
    return f"{time.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"
