"""When an event was sent, as the event itself says."""

from contextlib import suppress
from datetime import UTC, datetime

import orjson


def sent_ms(data: bytes) -> int | None:
    """``meta.dt`` (else ``timestamp``) of an event, ms since 1970; None for a line that has no readable time."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        document = orjson.loads(data)
        if "dt" in document["meta"]:
            return parse_time_ms(document["meta"]["dt"])
        return int(document["timestamp"]) * 1000
    return None


def parse_time_ms(text: str) -> int:
    """An ISO 8601 time, or ms since 1970 as a number.

    Raises:
        ValueError: it is neither.
    """
    if text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
