from datetime import UTC, datetime, timedelta, timezone

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.transforms.instants import day_is_final, hour_is_final, hour_of_day, instant

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns", "Asia/Tokyo"])
def test_hours_are_utc_in_every_session(spark: SparkSession, zone: str) -> None:
    times = {
        datetime(2026, 1, 5, 0, 0, tzinfo=UTC): 0,
        datetime(2026, 1, 5, 23, 59, 59, 999_999, tzinfo=UTC): 23,
        datetime(2026, 7, 5, 13, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))): 8,
        datetime(1969, 12, 31, 22, 15, tzinfo=UTC): 22,
    }
    session = spark.newSession()
    session.conf.set("spark.sql.session.timeZone", zone)
    rows = session.createDataFrame([(time,) for time in times], "time timestamp")
    found = rows.select(
        hour_of_day(sf.col("time")), sf.unix_micros("time"), sf.unix_micros(instant(max(times)))
    ).collect()
    assert [row[0] for row in found] == list(times.values())
    assert found[0][2] == max(times).timestamp() * 1_000_000


def test_an_instant_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        instant(datetime(2026, 1, 5, 10, 0))


def test_hours_and_days_become_final_when_their_lateness_has_passed(spark: SparkSession) -> None:
    watermark = datetime(2026, 1, 6, 2, 0, tzinfo=UTC)
    hours = [("2026-01-05", 23), ("2026-01-06", 0), ("2026-01-04", 5), ("2026-01-07", 0)]
    rows = spark.createDataFrame(hours, "date string, hour int")

    def final(watermark: datetime, lateness: int) -> list[tuple[bool, bool]]:
        bounds = {"watermark": watermark, "allowed_lateness_hours": lateness}
        columns = rows.select(
            hour_is_final(sf.col("date"), sf.col("hour"), **bounds), day_is_final(sf.col("date"), **bounds)
        )
        return [tuple(row) for row in columns.collect()]

    # The day of 5 January ends at 00:00 on the 6th: two hours of lateness end exactly at the watermark.
    assert final(watermark, 2) == [(True, True), (False, False), (True, True), (False, False)]
    assert final(watermark - timedelta(microseconds=1), 2) == [
        (False, False),
        (False, False),
        (True, True),
        (False, False),
    ]
    assert final(watermark, 1) == [(True, True), (True, False), (True, True), (False, False)]
    assert final(watermark, 0) == [(True, True), (True, False), (True, True), (False, False)]
