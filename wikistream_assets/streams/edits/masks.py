"""What hides people in old rows: names and addresses become keyed hashes, free text goes.

One name has one hash in all tables, so counts of distinct users and pages, and joins, are what they were before. Masking what is
masked already changes nothing.
"""

from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.streams.edits.users import normalized
from wikistream_assets.transforms.pseudonyms import is_address, keyed_hash, pseudonym, without_addresses

USER_NAMESPACES: Final = (2, 3)
"""MediaWiki's namespaces of pages that are named after a user: user pages and their talk pages."""

_HASH: Final = "[0-9a-f]{16}"
_MASKED: Final = rf"\A(?:ip|user)-{_HASH}\z"
_USER_PAGE: Final = r"\A([^:]*:)?([^/]*)/?(.*)\z"


def masked_user(user: Column, key: bytes) -> Column:
    """``ip-`` or ``user-`` and 16 hexadecimal digits in place of an address or a name; the former as in Gold.

    Args:
        user: as received, or normalized: both give the same.
        key: the secret of this home.
    """
    name = normalized(user)
    hidden = sf.when(is_address(name), pseudonym(name, key)).otherwise(
        sf.concat(sf.lit("user-"), keyed_hash(name, key))
    )
    return sf.when(name.rlike(_MASKED), name).otherwise(hidden)


def masked_title(title: Column, namespace: Column, key: bytes) -> Column:
    """``title`` with the user hidden in the name of a user's page, and its subpage; elsewhere only addresses are."""
    subpage = sf.regexp_extract(title, _USER_PAGE, 3)
    hidden = sf.when(subpage.rlike(rf"\A{_HASH}\z"), subpage).otherwise(keyed_hash(subpage, key))
    user_page = sf.concat(
        sf.regexp_extract(title, _USER_PAGE, 1),
        masked_user(sf.regexp_extract(title, _USER_PAGE, 2), key),
        sf.when(subpage != "", sf.concat(sf.lit("/"), hidden)).otherwise(""),
    )
    return sf.when(namespace.isin(*USER_NAMESPACES), user_page).otherwise(without_addresses(title, key))


def mask_bronze(rows: DataFrame, key: bytes) -> DataFrame:
    """``bronze.raw_events``: user and title hidden; what may name anyone (comment, payload, a hidden title's URL) gone."""
    title = masked_title(sf.col("title"), sf.col("namespace"), key)
    return rows.withColumns(
        {
            "user": masked_user(sf.col("user"), key),
            "title": title,
            "title_url": sf.when(title == sf.col("title"), sf.col("title_url")),
            "comment": sf.lit(None).cast("string"),
            "payload": sf.lit(None).cast("string"),
        }
    )


def mask_cleaned(rows: DataFrame, key: bytes) -> DataFrame:
    """``silver.cleaned_events`` and the quarantine: user and title hidden; ``user_kind`` still says what the user was."""
    return rows.withColumns(
        {
            "user_normalized": masked_user(sf.col("user_normalized"), key),
            "title": masked_title(sf.col("title"), sf.col("namespace"), key),
        }
    )


def mask_dead_letters(rows: DataFrame, _: bytes) -> DataFrame:
    """``bronze.dead_letter``: the original is gone; that there was one, when and why, stays."""
    nothing = sf.lit(None).cast("string")
    return rows.withColumns({"original": nothing, "detail": nothing})


def mask_scores(rows: DataFrame, key: bytes) -> DataFrame:
    """``gold.risk_scores``: the scored user hidden."""
    return rows.withColumn("entity_id", masked_user(sf.col("entity_id"), key))


def mask_trends(rows: DataFrame, key: bytes, silver: DataFrame) -> DataFrame:
    """``gold.entity_trends``: users hidden, and pages as in Silver.

    Args:
        rows: of one or more days.
        silver: rows of ``silver.cleaned_events`` of the same days: they know which pages are users' pages.
    """
    page = sf.concat(sf.col("domain"), sf.lit(":"), sf.col("title"))
    hidden = sf.concat(sf.col("domain"), sf.lit(":"), masked_title(sf.col("title"), sf.col("namespace"), key))
    pages = silver.where(sf.col("namespace").isin(*USER_NAMESPACES)).select(
        without_addresses(page, key).alias("entity_id"), hidden.alias("_hidden")
    )
    # The day's few trending pages are broadcast against its many edits, not the other way round.
    wanted = pages.join(sf.broadcast(rows.select("entity_id")), "entity_id", "left_semi").distinct()
    entity_id = (
        sf.when(sf.col("entity_type") == "user", masked_user(sf.col("entity_id"), key))
        .when(sf.col("entity_type") == "page", sf.coalesce("_hidden", "entity_id"))
        .otherwise(sf.col("entity_id"))
    )
    return rows.join(sf.broadcast(wanted), "entity_id", "left").withColumn("entity_id", entity_id).select(*rows.columns)
