import unicodedata

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits.users import normalized
from wikistream_assets.transforms import text

pytestmark = pytest.mark.spark

BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ZERO_WIDTH = "\u00ad\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff"


def _cleaned(spark: SparkSession, values: list[str | None]) -> list[tuple[str | None, str | None]]:
    rows = spark.createDataFrame([(value,) for value in values], "value string")
    cleaned = rows.select(text.one_line(sf.col("value")), normalized(sf.col("value"))).collect()
    return [(as_title, as_user) for as_title, as_user in cleaned]


def test_every_character_of_the_first_planes(spark: SparkSession) -> None:
    """Each code point between two letters: taken out, made a space, or kept."""
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code <= 0xDFFF]
    for char, (as_title, as_user) in zip(
        characters, _cleaned(spark, [f"a{char}b" for char in characters]), strict=True
    ):
        if unicodedata.category(char) in ("Zs", "Zl", "Zp") or char in "\t\n\v\f\r\x85":
            expected = ("a b", "a b")
        elif unicodedata.category(char) == "Cc" or char in BIDIRECTIONAL:
            expected = ("ab", "ab")
        elif char in ZERO_WIDTH:
            expected = (f"a{char}b", "ab")
        else:
            expected = (f"a{char}b", f"a{char}b")
        assert (as_title, as_user) == expected, f"U+{ord(char):04X}"


def test_spaces_are_collapsed_and_trimmed_and_nothing_is_null(spark: SparkSession) -> None:
    table = {
        "Ada": "Ada",
        "Ada Byron": "Ada Byron",
        " Ada": "Ada",
        "Ada ": "Ada",
        "  Ada  \t Byron\n": "Ada Byron",
        "Ada \x00 Byron": "Ada Byron",
        "\u202eadA": "adA",
        "東京 三月": "東京 三月",
        "": None,
        " ": None,
        "\x00\x1f": None,
        "\u202e \u2066": None,
        None: None,
    }
    assert _cleaned(spark, list(table)) == [(expected, expected) for expected in table.values()]
