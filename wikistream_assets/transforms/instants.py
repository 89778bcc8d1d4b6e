"""Instants, independent of the session's time zone: every figure here is UTC."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as sf

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_SECONDS: Final = 3600
_DAY_SECONDS: Final = 86400


def instant(value: datetime | Column) -> Column:
    """``value`` as a timestamp column; a datetime must know its time zone.

    Raises:
        ValueError: a datetime without time zone, which would mean another instant on each machine.
    """
    if isinstance(value, Column):
        return value
    return sf.timestamp_micros(sf.lit(_micros(value)))


def hour_of_day(timestamp: Column) -> Column:
    """The UTC hour, 0-23, as int."""
    second_of_day = sf.pmod(sf.unix_seconds(timestamp), sf.lit(_DAY_SECONDS))
    return sf.floor(second_of_day / _HOUR_SECONDS).cast("int")


def hour_is_final(date: Column, hour: Column, *, watermark: datetime, allowed_lateness_hours: int) -> Column:
    """Whether the ``hour`` (0-23) of ``date`` (yyyy-MM-dd) is over and no late event is expected any more.

    It is when its end plus the allowed lateness is not after ``watermark``, the newest event time that was seen: event time, not
    the clock, so that a replayed capture gives the same answer on any day.
    """
    return _is_final(date, (hour + 1) * _HOUR_SECONDS, watermark, allowed_lateness_hours)


def day_is_final(date: Column, *, watermark: datetime, allowed_lateness_hours: int) -> Column:
    """Whether ``date`` (yyyy-MM-dd) is over and no late event is expected any more; see ``hour_is_final``."""
    return _is_final(date, sf.lit(_DAY_SECONDS), watermark, allowed_lateness_hours)


def _is_final(date: Column, seconds_into_day: Column, watermark: datetime, allowed_lateness_hours: int) -> Column:
    closed_micros = _micros(watermark) - allowed_lateness_hours * _HOUR_SECONDS * 1_000_000
    end = sf.unix_date(sf.to_date(date)).cast("long") * _DAY_SECONDS + seconds_into_day
    return end * 1_000_000 <= sf.lit(closed_micros)


def _micros(value: datetime) -> int:
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no time zone: pass an aware datetime")
    return (value - _EPOCH) // timedelta(microseconds=1)


def by_name(hours: Mapping[tuple[str, int], int]) -> Counter[str]:
    """Numbers of hours by the hours' names."""
    return Counter({hour_name(*hour): number for hour, number in hours.items()})


def hour_name(day: str | None, hour: int | None) -> str:
    """What people read of an hour of a date; rows without a time are counted too, and have a name."""
    return f"{day or 'no date'} {f'{hour:02d}h' if hour is not None else 'no hour'}"
