"""Networks that clients and proxies are in. Pure.

Invariant: an address is compared as a number, whatever it was written like; IPv4 within IPv6
(`::ffff:10.0.0.1`) is IPv4. `unix` stands for whoever comes through a unix socket, whose address
is written so.
"""

import ipaddress
from collections.abc import Iterable

UNIX = "unix"

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED_BITS = 96  # of `::ffff:0:0/96`; the rest is an IPv4 address


def parse_network(text: str) -> str:
    """Read `10.0.0.0/8`, `2001:db8::/32`, an address, or `unix`; give it in its usual writing.

    IPv4 within IPv6 is given as IPv4. Raises `ValueError`, also where bits of the host are set:
    `10.0.0.1/8` is a typing error.
    """
    if text == UNIX:
        return text
    network = _unmap(ipaddress.ip_network(text))
    is_single = network.num_addresses == 1
    return str(network.network_address) if is_single else str(network)


def _unmap(network: _Network) -> _Network:
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def parse_ip(text: str) -> _IP:
    """Read an address; one within `::ffff:0:0/96` is given as IPv4. Raises `ValueError`."""
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Networks:
    """A set of networks, made of what `parse_network` gave."""

    def __init__(self, texts: Iterable[str]) -> None:
        names = set(texts)
        self._has_unix = UNIX in names
        self._networks = [ipaddress.ip_network(text) for text in names - {UNIX}]

    def __contains__(self, address: str) -> bool:
        """Whether `address`, as an exchange's `remote` has it, lies in one of them."""
        if address == UNIX:
            return self._has_unix
        try:
            ip = parse_ip(address)
        except ValueError:
            return False  # not one that a connection can have, so nobody's
        return any(ip in network for network in self._networks)
