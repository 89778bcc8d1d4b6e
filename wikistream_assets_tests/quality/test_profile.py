"""Profiles equal what pandas computes from the same rows."""

import math
import random

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from wikistream_assets.quality.profile import ColumnProfile, category_counts, profile

pytestmark = pytest.mark.spark

SCHEMA = "kind string, flag boolean, size int, big long, share double, nothing int"
COLUMNS = [declaration.split()[0] for declaration in SCHEMA.split(", ")]
NUMERIC = ("size", "big", "share", "nothing")


def invented(rows: int) -> pd.DataFrame:
    """Rows with nulls, repeated values, negative and large numbers."""
    dice = random.Random(20260301)
    values = [
        (
            dice.choice(["edit", "new", "log", None]),
            dice.choice([True, False, None]),
            dice.choice([None, dice.randint(-50_000, 50_000)]),
            dice.randint(2**33, 2**33 + 5_000_000),
            dice.gauss(10, 3),
            None,
        )
        for _ in range(rows)
    ]
    return pd.DataFrame(values, columns=COLUMNS, dtype=object)


def expected(frame: pd.DataFrame, column: str) -> ColumnProfile:
    values = frame[column].dropna()
    common = ColumnProfile(column, len(frame), int(frame[column].isna().sum()), int(values.nunique()))
    if column not in NUMERIC or values.empty:
        return common
    numbers = values.astype("float64")
    quantiles = numbers.quantile([0.25, 0.5, 0.75, 0.95], interpolation="linear")
    return ColumnProfile(
        column,
        common.record_count,
        common.null_count,
        common.distinct_count,
        numbers.mean(),
        None if len(numbers) == 1 else numbers.std(ddof=1),
        numbers.min(),
        numbers.max(),
        *quantiles,
    )


@pytest.mark.parametrize("rows", [1, 2, 777])
def test_a_profile_equals_pandas(spark: SparkSession, rows: int) -> None:
    frame = invented(rows)
    values = [tuple(None if pd.isna(value) else value for value in row) for row in frame.itertuples(index=False)]

    profiles = profile(spark.createDataFrame(values, SCHEMA), COLUMNS)

    for measured, column in zip(profiles, COLUMNS, strict=True):
        wanted = expected(frame, column)
        for name, figure in vars(wanted).items():
            found = getattr(measured, name)
            if isinstance(figure, float):
                assert math.isclose(found, figure, rel_tol=1e-9, abs_tol=1e-9), (column, name)
            else:
                assert found == figure, (column, name)


def test_an_empty_frame_has_a_profile(spark: SparkSession) -> None:
    profiles = profile(spark.createDataFrame([], SCHEMA), ["kind", "size"])

    assert profiles == [ColumnProfile("kind", 0, 0, 0), ColumnProfile("size", 0, 0, 0)]
    assert profiles[0].null_rate == 0


def test_no_columns_no_profile(spark: SparkSession) -> None:
    assert profile(spark.range(3), []) == []


def test_null_rate_is_the_share_of_null_rows() -> None:
    assert ColumnProfile("size", 8, 2, 3).null_rate == 0.25


def test_category_counts(spark: SparkSession) -> None:
    rows = [("edit", True), ("edit", False), (None, True), ("new", True)]

    counts = category_counts(spark.createDataFrame(rows, "kind string, flag boolean"), ["kind", "flag"])

    assert counts == {"kind": {"edit": 2, "new": 1, "null": 1}, "flag": {"True": 3, "False": 1}}
