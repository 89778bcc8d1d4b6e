"""What a time is: the one language of ``meta.dt`` and ``timestamp`` that producer, server and Bronze read.

``timestamp`` is a whole number of seconds since 1970 (a JSON number: no text, no fraction). ``meta.dt`` is a date and a time of
day as in RFC 3339: ``2026-03-01T12:00:00.123Z``. A blank may stand for the ``T``, letters may be small, seconds may have nine
digits of fraction (microseconds count), the offset may do without colon and minutes, and a time without offset is UTC. No time
are: a date alone, a time without seconds, ISO 8601's basic form (``20260301T120000Z``), a number, a leap second (no wiki's clock
shows one). An event that has both is judged by both and happened at ``timestamp``.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

DATE_TIME: Final = (
    r"(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)?"
)
"""What ``meta.dt`` may look like, the whole of it, for Python and for Java. That the date exists is left to the calendar."""

EARLIEST_EVENT: Final = datetime(2001, 1, 15, tzinfo=UTC)
"""Wikipedia's first day: no wiki has an older change, an earlier time is a defect (0, a wrong unit)."""

MAX_AHEAD: Final = timedelta(hours=24)
"""An event further ahead of the clock than this would open partitions that no day ever closes."""

_DATE_TIME: Final = re.compile(DATE_TIME)


def parse(text: str) -> datetime:
    """Read ``meta.dt``; the result knows its time zone.

    Raises:
        ValueError: it is no time.
    """
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(f"not a date and time as in RFC 3339: {text[:100]!r}")
    moment = datetime.fromisoformat(text.upper())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def sent_ms(data: bytes) -> int | None:
    """When an event was sent: ``meta.dt``, else ``timestamp``, ms since 1970; None for a line that has no readable time."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        document = orjson.loads(data)
        if document["meta"].get("dt") is not None:
            return _ms(parse(document["meta"]["dt"]))
        if type(document["timestamp"]) is int:
            return int(document["timestamp"]) * 1000
    return None


def parse_since_ms(text: str) -> int:
    """The ``since`` of a request: a time, a date, or ms since 1970 as a number.

    Raises:
        ValueError: it is none of them.
    """
    if re.fullmatch("[0-9]{1,15}", text):
        return int(text)
    moment = datetime.fromisoformat(text)
    return _ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
