import hashlib
import hmac

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits.users import kind
from wikistream_assets.transforms.pseudonyms import is_address, pseudonym, without_addresses
from wikistream_assets_tests.streams.edits.frames import USER_KEY
from wikistream_assets_tests.user_names import KIND_BY_NAME, odd_addresses

pytestmark = pytest.mark.spark


def _kinds(spark: SparkSession, users: list[str | None], is_bot: bool | None = False) -> list[str | None]:
    rows = spark.createDataFrame([(user, is_bot) for user in users], "user string, is_bot boolean")
    return [row[0] for row in rows.select(kind(sf.col("user"), sf.col("is_bot"))).collect()]


def test_kinds_of_users(spark: SparkSession) -> None:
    assert dict(zip(KIND_BY_NAME, _kinds(spark, list(KIND_BY_NAME)), strict=True)) == KIND_BY_NAME
    assert _kinds(spark, [None]) == [None]


def test_the_bot_flag_comes_first_and_a_missing_flag_is_no_bot(spark: SparkSession) -> None:
    names = ["Ada", "192.0.2.1", "2001:db8::1", "~2026-1"]
    assert _kinds(spark, names, is_bot=True) == ["bot"] * 4
    assert _kinds(spark, names, is_bot=None) == ["registered", "ip4", "ip6", "temporary"]


def test_addresses_agree_with_the_standard_library(spark: SparkSession) -> None:
    expected = odd_addresses()
    assert min(list(expected.values()).count(each) for each in ("ip4", "ip6", "registered")) > 2_500

    found = dict(zip(expected, _kinds(spark, list(expected)), strict=True))

    assert {name: kind for name, kind in found.items() if kind != expected[name]} == {}


def test_pseudonyms_are_keyed_hashes_of_addresses_only(spark: SparkSession) -> None:
    names = ["192.0.2.1", "2001:db8::1", "Ada", "~2026-1", "ip-0123456789abcdef", None]

    def pseudonyms(key: bytes) -> list[str | None]:
        rows = spark.createDataFrame([(name,) for name in names], "user string")
        return [row[0] for row in rows.select(pseudonym(sf.col("user"), key)).collect()]

    for key in (USER_KEY, b"k", b"x" * 64, b"longer than a block of SHA-256, which is hashed first " * 2):
        hashes = [hmac.new(key, str(name).encode(), hashlib.sha256).hexdigest()[:16] for name in names[:2]]
        assert pseudonyms(key) == [f"ip-{hashes[0]}", f"ip-{hashes[1]}", *names[2:]]
    assert set(pseudonyms(b"one")) & set(pseudonyms(b"two")) == set(names[2:])


def test_addresses_in_titles_are_masked_where_they_stand_alone(spark: SparkSession) -> None:
    def masked(address: str) -> str:
        return f"ip-{hmac.new(USER_KEY, address.encode(), hashlib.sha256).hexdigest()[:16]}"

    four, six = "192.0.2.1", "2001:DB8:0:0:0:0:0:1"
    table = {
        f"en.wikipedia.org:User talk:{four}": f"en.wikipedia.org:User talk:{masked(four)}",
        f"User:{six}/Archive": f"User:{masked(six)}/Archive",
        f"Special:Contributions/{four}": f"Special:Contributions/{masked(four)}",
        f"Cases/{four} and {six}.": f"Cases/{masked(four)} and {masked(six)}.",
        "Version 1.2.3.4.5": "Version 1.2.3.4.5",
        "Release v1.2.3.4": "Release v1.2.3.4",
        "std::a": "std::a",
        "Kino :: Kurz": "Kino :: Kurz",
        "Meeting at 10:30": "Meeting at 10:30",
        None: None,
    }
    rows = spark.createDataFrame([(title,) for title in table], "title string")
    found = rows.select("title", without_addresses(sf.col("title"), USER_KEY)).collect()
    assert {row.title: row[1] for row in found} == table


def test_is_address_looks_at_the_name_alone(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("192.0.2.1",), ("::1",), ("Ada",)], "user string")
    assert [row[0] for row in rows.select(is_address(sf.col("user"))).collect()] == [True, True, False]
