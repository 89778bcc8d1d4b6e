"""Who made an edit: the user's name made comparable, and the kind of user."""

from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as sf

from wikistream_assets.transforms import text
from wikistream_assets.transforms.pseudonyms import ADDRESS4, ADDRESS6, matches

BOT: Final = "bot"
REGISTERED: Final = "registered"
TEMPORARY: Final = "temporary"
IP4: Final = "ip4"
IP6: Final = "ip6"
ANONYMOUS_KINDS: Final = (TEMPORARY, IP4, IP6)
"""Kinds of users who did not register: an address until 2025, a temporary account since."""

_TEMPORARY_NAME: Final = "~[0-9]+(?:-[0-9]+)*"
"""Names that MediaWiki generates for temporary accounts: ``~``, on Wikimedia's wikis the year and a hyphen, then a serial number
in decimal digits with a hyphen after every fifth: ``~2026-12345-67``, ``~2024-1``; without a year ``~12345``.

MediaWiki itself takes every name that begins with ``~2`` for temporary (its ``matchPattern``), which no new account may have but
older, registered ones do: ``~2cool``. Only the generated form tells the two apart."""


def normalized(user: Column) -> Column:
    """``user`` without control and zero-width characters, white space collapsed and trimmed; null if nothing is left."""
    return text.one_line(user, removed=text.CONTROLS + text.ZERO_WIDTH)


def kind(user: Column, is_bot: Column) -> Column:
    """``bot``, ``ip4``, ``ip6``, ``temporary`` or ``registered``, the first that applies; null for a null user without bot flag.

    The bot flag comes first: it is the edit's own, and MediaWiki sets it for accounts only. Addresses are strict (octets 0-255
    without leading zeros, the whole IPv6 grammar in either case), because ``1.2.3.444`` is a name that a person may register.
    """
    return (
        sf.when(is_bot, sf.lit(BOT))
        .when(user.isNull(), sf.lit(None).cast("string"))
        .when(matches(user, ADDRESS4), sf.lit(IP4))
        .when(matches(user, ADDRESS6), sf.lit(IP6))
        .when(matches(user, _TEMPORARY_NAME), sf.lit(TEMPORARY))
        .otherwise(sf.lit(REGISTERED))
    )
