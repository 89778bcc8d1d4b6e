"""User names and their kinds, labelled by hand: what the transform and the rule that audits it are both held against."""

import ipaddress
import random
from typing import Final

KIND_BY_NAME: Final[dict[str, str]] = {
    "Ada": "registered",
    "BEEF": "registered",
    "a:b": "registered",
    "Foo:bar:baz": "registered",
    "de>Ada": "registered",
    "Dead:Beef:Cafe": "registered",
    "face:b00c:": "registered",
    ":": "registered",
    ":::": "registered",
    "...": "registered",
    "-": "registered",
    "192.0.2.1": "ip4",
    "192.0.2.17": "ip4",
    "0.0.0.1": "ip4",
    "255.255.255.255": "ip4",
    "256.0.2.1": "registered",
    "192.0.2.256": "registered",
    "192.0.2.01": "registered",
    "1..3.4": "registered",
    "192.0.2": "registered",
    "192.0.2.1.5": "registered",
    "192.0.2.1/24": "registered",
    "192.0.2.1 Ada": "registered",
    " 192.0.2.17": "registered",
    "192.0.2.xxx": "registered",
    "1.2.3.99999999999": "registered",
    "٣.٣.٣.٣": "registered",
    "2001:DB8:0:0:0:0:0:1": "ip6",
    "2001:db8:0:0:0:0:0:1": "ip6",
    "1:2:3:4:5:6:7:8": "ip6",
    "2001:db8::1": "ip6",
    "::": "ip6",
    "::1": "ip6",
    "2001:db8::": "ip6",
    "1:2:3:4:5:6:7::": "ip6",
    "::2:3:4:5:6:7:8": "ip6",
    "::ffff:192.0.2.1": "ip6",
    "1:2:3:4:5:6:192.0.2.1": "ip6",
    "1:2:3:4:5:6:7:192.0.2.1": "registered",
    "192.0.2.1::": "registered",
    "192.0.2.1:1::": "registered",
    "::192.0.2.256": "registered",
    "::192.0.2.1:1": "registered",
    "1::2::3": "registered",
    "1:2:3:4:5:6:7:8:9": "registered",
    "1:2:3:4:5:6:7": "registered",
    "1::2:3:4:5:6:7:8": "registered",
    ":1:2:3:4:5:6:7": "registered",
    "1:2:3:4:5:6:7:": "registered",
    ":1::2": "registered",
    "1::2:": "registered",
    "1:::2": "registered",
    "12345::": "registered",
    "12345:1::": "registered",
    "2001:db8::g": "registered",
    "fe80::1%eth0": "registered",
    "~2026-12345-67": "temporary",
    "~2024-1": "temporary",
    "~12345": "temporary",
    "~2": "temporary",
    "~26-1": "temporary",
    "~2026-": "registered",
    "~2026--1": "registered",
    "~-2026": "registered",
    "~": "registered",
    "~~2026-1": "registered",
    "~Ada": "registered",
    "~2cool": "registered",
    "~2cool Harbour": "registered",
    "~2026-12345-67 (alt)": "registered",
    "~2026-1234a": "registered",
    "~٢٠٢٦-1": "registered",
    "2026-12345-67": "registered",
    "Ada ~2026-12345-67": "registered",
    "~2026-12345-67\n": "registered",
    "": "registered",
}
"""The kind of each name on an edit without bot flag."""


def odd_addresses() -> dict[str, str]:
    """Thousands of addresses in every spelling, and the same with a character changed, doubled or lost; with their kinds.

    The kinds are the standard library's. A zone (``%eth0``) makes an address nobody's on the Internet: no address here.
    """
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
    return {name: _kind_by_standard_library(name) for name in names}


def _kind_by_standard_library(name: str) -> str:
    try:
        return "registered" if "%" in name else f"ip{ipaddress.ip_address(name).version}"
    except ValueError:
        return "registered"
