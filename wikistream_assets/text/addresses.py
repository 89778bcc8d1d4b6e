"""IP addresses in a text, replaced by the pseudonym that stands for them in Gold.

The last fence before a text leaves the machine: an error message of a library may quote a row. Loopback and private addresses
name machines of the pipeline, not users, and stay.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from wikistream_assets.text.pseudonyms import address_pseudonym

_TOKEN: Final = re.compile(r"(?<![\w.:])(?:[0-9A-Fa-f:.]*[0-9A-Fa-f:])(?![\w:])")
_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")
_OURS: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    ip_network(text)
    for text in ("0.0.0.0/32", "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::/127", "fc00::/7")
)


def without_addresses(text: str, key: Callable[[], bytes]) -> str:
    """``text`` with ``ip-`` and 16 hexadecimal digits in place of each address, as ``streams.edits.users`` makes them.

    Args:
        text: any text.
        key: gives the home's secret; called only if there is an address.
    """
    return _TOKEN.sub(lambda match: _hidden(match[0], key), text)


def _hidden(token: str, key: Callable[[], bytes]) -> str:
    with_port = _WITH_PORT.fullmatch(token)
    name = with_port[1] if with_port else token
    address = _address(name)
    if address is None or any(address in network for network in _OURS):
        return token
    return f"{address_pseudonym(name, key())}{token[len(name) :]}"


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
