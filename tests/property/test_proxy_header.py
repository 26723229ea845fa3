"""The PROXY protocol's header, however it is cut, and whatever else comes instead."""

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from server.proxy_header import MAX_BYTES, MalformedHeader, ProxyHeader, parse_proxy_header
from tests.fakes.proxy_protocol import PROXY, SIGNATURE, TCP4, TCP6, binary_header

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.integers(0, 65535)


def seen(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def check_cuts(header: bytes, rest: bytes, client: str | None) -> None:
    """Whatever part has arrived, it is waited for or read, and nothing else."""
    whole = header + rest
    for length in range(1, len(whole) + 1):
        found = parse_proxy_header(whole[:length])
        expected = ProxyHeader(client, len(header)) if length >= len(header) else None
        assert found == expected, length


@given(ADDRESSES, ADDRESSES, PORTS, PORTS, st.binary(max_size=20), st.binary(max_size=20))
def test_version_2_is_read_however_it_is_cut(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    other_port: int,
    extensions: bytes,
    rest: bytes,
) -> None:
    if destination.version != source.version:
        destination = source
    family = TCP4 if source.version == 4 else TCP6
    ports = struct.pack("!HH", port, other_port)
    addresses = source.packed + destination.packed + ports + extensions
    check_cuts(binary_header(PROXY, family, addresses), rest, seen(source))


@given(ADDRESSES, PORTS, st.binary(max_size=20))
def test_version_1_is_read_however_it_is_cut(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, rest: bytes
) -> None:
    header = f"PROXY TCP{source.version} {source} {source} {port} 443\r\n".encode()
    check_cuts(header, rest, seen(source))


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(SIGNATURE.__add__)))
def test_any_bytes_are_read_waited_for_or_refused(data: bytes) -> None:
    try:
        header = parse_proxy_header(data)
    except MalformedHeader:
        # What is refused stays refused, whatever comes after it.
        try:
            later = parse_proxy_header(data + b"\r\nmore")
        except MalformedHeader:
            return
        raise AssertionError(later) from None
    if header is None:
        assert len(data) < MAX_BYTES
    else:
        assert header.end <= len(data)
