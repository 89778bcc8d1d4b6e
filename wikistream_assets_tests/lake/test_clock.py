"""A clock that was set back by more than a minute: neither PyIceberg nor Spark commits, and every table stays readable."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.exceptions import ClockBehindError, LakeError
from wikistream_assets.lake.failures import explained, in_one_line
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import local_path
from wikistream_assets.lake.spark_io import append_rows, read_table
from wikistream_assets.lake.state import clock_is_behind
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets_tests.lake.lakes import add, full_row, set_clock_back

COMMITS: dict[str, Callable[[Lakehouse], object]] = {
    "append": lambda lake: lake.append(RAW_EVENTS),
    "property": lambda lake: lake.set_property(RAW_EVENTS, "a", "b"),
    "tag": lambda lake: lake.tag(RAW_EVENTS, "audited", lake.state(RAW_EVENTS).head_id()),
    "branch": lambda lake: lake.create_branch(RAW_EVENTS, "audit_a"),
    "reset": lambda lake: lake.reset_main(
        RAW_EVENTS, next(v for v in lake.state(RAW_EVENTS).history() if v.parent_id).parent_id or 0
    ),
}


@pytest.mark.local
@pytest.mark.parametrize("name", COMMITS)
def test_pyiceberg_commits_nothing(lake: Lakehouse, name: str) -> None:
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS))
    set_clock_back(lake, RAW_EVENTS, 3_600)
    before = lake.table(RAW_EVENTS).metadata_location
    with pytest.raises(ClockBehindError) as told:
        COMMITS[name](lake)
    assert lake.table(RAW_EVENTS).metadata_location == before
    text = str(told.value)
    found = re.match(r"the clock is (\d+) s behind the newest commit of bronze\.raw_events \(20", text)
    assert found is not None, text
    assert 3_500 < int(found[1]) <= 3_600
    assert "\n" not in text
    assert clock_is_behind(map(lake.state, ALL_TABLES), datetime.now(UTC)) is not None
    assert clock_is_behind([lake.state(DEAD_LETTER)], datetime.now(UTC)) is None


@pytest.mark.local
@pytest.mark.parametrize("seconds", [-10, 0, 55])
def test_what_iceberg_allows_is_no_clock_behind(lake: Lakehouse, seconds: float) -> None:
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS))
    set_clock_back(lake, RAW_EVENTS, seconds)
    assert clock_is_behind(map(lake.state, ALL_TABLES), datetime.now(UTC)) is None
    lake.append(RAW_EVENTS)


@pytest.mark.spark
def test_spark_is_understood_and_the_table_stays_readable(lake: Lakehouse, spark: SparkSession) -> None:
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS))
    set_clock_back(lake, RAW_EVENTS, 3_600)
    with pytest.raises(ClockBehindError, match="the clock is behind"):
        in_one_line(append_rows)(read_table(spark, RAW_EVENTS), RAW_EVENTS, {})
    with pytest.raises(ClockBehindError):
        lake.append(RAW_EVENTS)
    assert read_table(spark, RAW_EVENTS).count() == 1
    content = json.loads((path := Path(local_path(lake.table(RAW_EVENTS).metadata_location))).read_text())
    content["last-updated-ms"] = 1  # as PyIceberg by itself would have left it
    path.write_text(json.dumps(content))
    with pytest.raises(LakeError, match="was written while the clock was set back"):
        in_one_line(lambda: read_table(spark, RAW_EVENTS).count())()


@pytest.mark.local
def test_other_errors_stay_what_they_are() -> None:
    assert explained(ValueError("Invalid timestamp 12")) is None
    assert explained(FileNotFoundError(2, "No such file or directory", "/home/me/capture.jsonl")) is None
