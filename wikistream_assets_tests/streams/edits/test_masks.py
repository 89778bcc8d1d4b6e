"""Masks against Python's own HMAC: one name one hash wherever it stands, and nothing left to read."""

import hashlib
import hmac

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits.masks import masked_title, masked_user
from wikistream_assets.streams.edits.users import normalized
from wikistream_assets.transforms.pseudonyms import pseudonym

pytestmark = pytest.mark.spark

KEY = b"a home's secret"


def digits(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()[:16]


USERS = {
    "Ada Lovelace": f"user-{digits('Ada Lovelace')}",
    "  Ada\u200b  Lovelace ": f"user-{digits('Ada Lovelace')}",
    "~2026-12345-67": f"user-{digits('~2026-12345-67')}",
    "192.0.2.1": f"ip-{digits('192.0.2.1')}",
    "2001:DB8::1": f"ip-{digits('2001:DB8::1')}",
    None: None,
}

TITLES = {
    ("User talk:Ada Lovelace/Archive/1", 3): f"User talk:user-{digits('Ada Lovelace')}/{digits('Archive/1')}",
    ("Benutzer:192.0.2.1", 2): f"Benutzer:ip-{digits('192.0.2.1')}",
    ("Ada Lovelace", 0): "Ada Lovelace",  # an article about her
    ("Special:Contributions/192.0.2.1", -1): f"Special:Contributions/ip-{digits('192.0.2.1')}",
    (None, 3): None,
}


def test_a_user_has_one_hash_raw_normalized_and_masked_before(spark: SparkSession) -> None:
    user = sf.col("user")
    once = masked_user(user, KEY)
    seen = spark.createDataFrame([(name,) for name in USERS], "user string").select(
        user,
        once.alias("raw"),
        masked_user(normalized(user), KEY).alias("clean"),
        masked_user(once, KEY).alias("twice"),
    )
    expected = {name: (mask, mask, mask) for name, mask in USERS.items()}
    assert {row.user: (row.raw, row.clean, row.twice) for row in seen.collect()} == expected


def test_an_address_is_masked_as_gold_hides_it(spark: SparkSession) -> None:
    address = spark.createDataFrame([("192.0.2.1",)], "user string")
    [(mask, gold)] = address.select(masked_user(sf.col("user"), KEY), pseudonym(sf.col("user"), KEY)).collect()
    assert mask == gold


def test_titles_hide_users_of_user_pages_and_addresses_everywhere(spark: SparkSession) -> None:
    title, namespace = sf.col("title"), sf.col("namespace")
    once = masked_title(title, namespace, KEY)
    seen = spark.createDataFrame(list(TITLES), "title string, namespace int").select(
        title, namespace, once.alias("once"), masked_title(once, namespace, KEY).alias("twice")
    )
    expected = {place: (mask, mask) for place, mask in TITLES.items()}
    assert {(row.title, row.namespace): (row.once, row.twice) for row in seen.collect()} == expected
