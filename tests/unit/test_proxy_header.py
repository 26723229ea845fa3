"""The PROXY protocol's header: whom it names, and what is refused."""

import pytest

from server.proxy_header import MAX_BYTES, MalformedHeader, ProxyHeader, parse_proxy_header
from tests.fakes.proxy_protocol import (
    LOCAL,
    PROXY,
    TCP4,
    TCP6,
    UNIX,
    UNSPECIFIED,
    binary_header,
    binary_header_from,
)

# A certificate's name as haproxy's `send-proxy-v2-ssl-cn` sends it (§2.2.5).
TLS_EXTENSION = bytes.fromhex("20000f01000000002200076e6f64652d3031")


@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1"])
def test_the_client_is_the_source_address(client: str) -> None:
    header = binary_header_from(client)
    assert parse_proxy_header(header + b"GET /") == ProxyHeader(client, len(header))


@pytest.mark.parametrize(
    "header",
    [
        binary_header(LOCAL, UNSPECIFIED),
        binary_header(LOCAL, TCP4, b"\x01" * 12),
        binary_header(LOCAL, 0x7F, b"whatever"),
        binary_header(PROXY, UNSPECIFIED, b"ignored"),
        binary_header(PROXY, UNIX, b"/run/x".ljust(108, b"\0") * 2),
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    ],
)
def test_a_header_may_name_nobody(header: bytes) -> None:
    assert parse_proxy_header(header) == ProxyHeader(None, len(header))


def test_extensions_are_skipped() -> None:
    header = binary_header(PROXY, TCP4, bytes([192, 0, 2, 1] * 2) + b"\0" * 4 + TLS_EXTENSION)
    assert parse_proxy_header(header) == ProxyHeader("192.0.2.1", len(header))


def test_a_header_has_a_size_at_most() -> None:
    addresses = bytes(12).ljust(MAX_BYTES - 16, b"\0")
    assert parse_proxy_header(binary_header(PROXY, TCP4, addresses)) is not None
    with pytest.raises(MalformedHeader, match="at most 4096"):
        parse_proxy_header(binary_header(PROXY, TCP4, addresses + b"\0")[:16])


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"\x16\x03\x01",
        b"\r\n\r\nGET",
        b"PROXY\r\n",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 123456\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 256.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 ".ljust(107, b"1"),
        binary_header(0x11, TCP4, bytes(12)),
        binary_header(0x22, TCP4, bytes(12)),
        binary_header(PROXY, 0x12, bytes(12)),
        binary_header(PROXY, TCP4, bytes(11)),
        binary_header(PROXY, TCP6, bytes(35)),
        binary_header(PROXY, UNIX, bytes(215)),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedHeader):
        parse_proxy_header(data)
