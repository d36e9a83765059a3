"""Which addresses may be called for clients: public ones by https, others only where a setting says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

# what Python takes for global, or knows nothing of: site-local, IPv4-compatible, local translation, segment routing
NOT_PUBLIC = tuple(
    map(ipaddress.ip_network, ("fec0::/10", "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "5f00::/16", "3fff::/20"))
)
ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # before the IPv4 address in the last 32 bits
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # to the IPv4 address in its last 32 bits (RFC 6052)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def may_call(url: str, *, private: bool) -> Callable[[str], bool]:
    """Return what says of an address whether a URL may lead there; `private` ones also by http."""
    is_https = urlsplit(url).scheme == "https"

    def may_be_called(address: str) -> bool:
        return is_https if is_public(address) else private

    return may_be_called


def is_public(address: str) -> bool:
    """Return whether an address is one of the whole Internet, and leads to no other that is not."""
    try:
        found: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(found in network for network in NOT_PUBLIC if network.version == found.version):
        return False
    within = _within(found)
    return found.is_global and not found.is_multicast and (within is None or is_public(str(within)))


def _within(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in TRANSLATED or address.packed[8:12] in ISATAP:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
