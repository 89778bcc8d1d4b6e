import hashlib
import hmac
import ipaddress
import random

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.transforms.shared.users import is_address, kind, pseudonym, without_addresses
from wikistream_assets_tests.transforms.frames import USER_KEY

pytestmark = pytest.mark.spark


def _kinds(spark: SparkSession, users: list[str | None], is_bot: bool | None = False) -> list[str | None]:
    rows = spark.createDataFrame([(user, is_bot) for user in users], "user string, is_bot boolean")
    return [row[0] for row in rows.select(kind(sf.col("user"), sf.col("is_bot"))).collect()]


def _reference(name: str) -> str:
    try:
        return "registered" if "%" in name else f"ip{ipaddress.ip_address(name).version}"
    except ValueError:
        return "registered"


def test_kinds_of_users(spark: SparkSession) -> None:
    table = {
        "Ada": "registered",
        "192.0.2.1": "ip4",
        "0.0.0.1": "ip4",
        "255.255.255.255": "ip4",
        "256.0.2.1": "registered",
        "192.0.2.256": "registered",
        "192.0.2.01": "registered",
        "192.0.2": "registered",
        "192.0.2.1.5": "registered",
        "192.0.2.1/24": "registered",
        "192.0.2.1 Ada": "registered",
        "192.0.2.xxx": "registered",
        "2001:DB8:0:0:0:0:0:1": "ip6",
        "2001:db8:0:0:0:0:0:1": "ip6",
        "2001:db8::1": "ip6",
        "::": "ip6",
        "::1": "ip6",
        "2001:db8::": "ip6",
        "1:2:3:4:5:6:7::": "ip6",
        "::2:3:4:5:6:7:8": "ip6",
        "::ffff:192.0.2.1": "ip6",
        "1:2:3:4:5:6:192.0.2.1": "ip6",
        "1::2::3": "registered",
        "1:2:3:4:5:6:7:8:9": "registered",
        "1:2:3:4:5:6:7": "registered",
        "1::2:3:4:5:6:7:8": "registered",
        "12345::": "registered",
        "2001:db8::g": "registered",
        "fe80::1%eth0": "registered",
        "~2026-12345-67": "temporary",
        "~2024-1": "temporary",
        "~12345": "temporary",
        "~2026-": "registered",
        "~": "registered",
        "~Ada": "registered",
        "2026-12345-67": "registered",
        "Ada ~2026-12345-67": "registered",
        "~2026-12345-67\n": "registered",
        None: None,
    }
    assert dict(zip(table, _kinds(spark, list(table)), strict=True)) == table


def test_the_bot_flag_comes_first_and_a_missing_flag_is_no_bot(spark: SparkSession) -> None:
    names = ["Ada", "192.0.2.1", "2001:db8::1", "~2026-1"]
    assert _kinds(spark, names, is_bot=True) == ["bot"] * 4
    assert _kinds(spark, names, is_bot=None) == ["registered", "ip4", "ip6", "temporary"]


def test_addresses_agree_with_the_standard_library(spark: SparkSession) -> None:
    """Valid ones in every spelling, and the same with one character changed, doubled or lost."""
    rng = random.Random(20260105)
    names = []
    for _ in range(2_000):
        six = ipaddress.IPv6Address(
            rng.getrandbits(128) & rng.getrandbits(128) & rng.choice([2**128 - 1, 2**40 - 1, 2**128 - 2**64])
        )
        four = str(ipaddress.IPv4Address(rng.getrandbits(32)))
        embedded = f"{six.exploded[:29].rstrip(':')}:{four}"
        names += [four, str(six), six.exploded, six.exploded.upper(), embedded, f"::{four}", f"{str(six)[:9]}::{four}"]
    for name in names[:]:
        place = rng.randrange(len(name))
        change = rng.choice(["", name[place] * 2, rng.choice("0123456789abcdefgABCDEF:.")])
        names.append(name[:place] + change + name[place + 1 :])
    # All short strings over the alphabet of the grammar, where compression is decided.
    names += [
        "".join(rng.choices(["1", "ab", ":", ":", "::", "1.2.3.4"], k=rng.randrange(1, 12))) for _ in range(6_000)
    ]

    expected = [_reference(name) for name in names]
    assert min(expected.count(each) for each in ("ip4", "ip6", "registered")) > 2_500
    wrong = [(name, got) for name, got, want in zip(names, _kinds(spark, names), expected, strict=True) if got != want]
    assert wrong == []


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
