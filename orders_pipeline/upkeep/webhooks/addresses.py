"""Which addresses may be called for clients: public ones by https, others only where a setting says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

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
    within = _within(found)
    return found.is_global and not found.is_multicast and (within is None or is_public(str(within)))


def _within(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in TRANSLATED:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
