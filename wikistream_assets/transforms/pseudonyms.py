"""Pseudonyms: IP addresses in names and texts, and the keyed hashes that stand for them."""

import hashlib
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as sf

_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
ADDRESS4: Final = rf"(?:{_OCTET}\.){{3}}{_OCTET}"


def _address6() -> str:
    """RFC 4291: eight groups of 16 bits, one run of them as ``::``, the last two possibly as an IPv4 address."""
    group = "[0-9A-Fa-f]{1,4}"
    forms = [f"(?:{group}:){{7}}{group}", f"(?:{group}:){{6}}{ADDRESS4}"]
    for before in range(8):
        head = f"(?:{group}:){{{before}}}:" if before else "::"
        forms.append(head + (f"(?:{group}(?::{group}){{0,{6 - before}}})?" if before < 7 else ""))
        if before < 6:
            forms.append(head + f"(?:{group}:){{0,{5 - before}}}{ADDRESS4}")
    return f"(?:{'|'.join(forms)})"


ADDRESS6: Final = _address6()
_ADDRESS_IN_TEXT: Final = rf"(?<![0-9A-Za-z.])(?!::(?![0-9A-Fa-f]))(?:{ADDRESS6}|{ADDRESS4})(?![0-9A-Za-z:]|\.[0-9])"


def is_address(user: Column) -> Column:
    """Whether the name is an IPv4 or IPv6 address, whatever its flags."""
    return matches(user, f"(?:{ADDRESS4}|{ADDRESS6})")


def pseudonym(user: Column, key: bytes) -> Column:
    """``user``, but ``ip-`` and 16 hexadecimal digits in place of an address, also that of a bot named like one.

    The digits are HMAC-SHA256 of the address under ``key``. An unkeyed hash would hide nothing: the four billion IPv4
    addresses are hashed in minutes. With one key per home the same address stays one entity over days and tables, and
    nobody without the key can go back.

    Args:
        user: the normalized name.
        key: the secret of this home, any length.
    """
    return sf.when(is_address(user), _address_pseudonym(user, key)).otherwise(user)


def without_addresses(title: Column, key: bytes) -> Column:
    """``title`` with the pseudonym in place of each IP address that stands alone: ``User talk:192.0.2.1`` names a person."""
    addresses = sf.regexp_extract_all(title, sf.lit(_ADDRESS_IN_TEXT), sf.lit(0))
    return sf.aggregate(
        addresses, title, lambda done, address: sf.replace(done, address, _address_pseudonym(address, key))
    )


def matches(name: Column, pattern: str) -> Column:
    """Whether the whole of ``name`` matches."""
    return name.rlike(rf"\A(?:{pattern})\z")


def keyed_hash(text: Column, key: bytes) -> Column:
    """The first 16 hexadecimal digits of HMAC-SHA256 of ``text`` under ``key``."""
    return sf.substring(_hmac_sha256(key, sf.encode(text, "UTF-8")), 1, 16)


def _address_pseudonym(address: Column, key: bytes) -> Column:
    return sf.concat(sf.lit("ip-"), keyed_hash(address, key))


def _hmac_sha256(key: bytes, message: Column) -> Column:
    """RFC 2104 over Spark's ``sha2``, as lower-case hexadecimal; ``message`` is binary."""
    block_bytes = 64
    padded = (hashlib.sha256(key).digest() if len(key) > block_bytes else key).ljust(block_bytes, b"\0")
    inner_key, outer_key = (sf.lit(bytearray(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    inner = sf.unhex(sf.sha2(sf.concat(inner_key, message), 256))
    return sf.sha2(sf.concat(outer_key, inner), 256)
