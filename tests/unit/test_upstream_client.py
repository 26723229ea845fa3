"""Faults of the network, in words."""

import errno
import socket

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from engine.errors import UpstreamProtocolError, UpstreamUnavailable
from engine.upstream.client import describe, map_faults, place_of

KEY = ConnectionKey("registry.test", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer"),
        (OSError(errno.ENETUNREACH, "x"), "network is unreachable"),
        (
            aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(errno.ECONNREFUSED, "x")),
            "connection refused",
        ),
        (
            aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name not known")),
            "name does not resolve: Name not known",
        ),
        (socket.gaierror(-2, "Name not known"), "name does not resolve: Name not known"),
        (aiohttp.ConnectionTimeoutError(), "connecting timed out"),
        (aiohttp.ServerDisconnectedError(), "closed the connection without an answer"),
        (aiohttp.ClientPayloadError("details"), "the body broke off"),
        (aiohttp.ClientConnectionError("Connector is closed"), "Connector is closed"),
        (aiohttp.ClientConnectionError(), "ClientConnectionError"),
    ],
)
def test_each_fault_is_unavailable_and_says_what_to_look_at(
    fault: Exception, expected: str
) -> None:
    assert describe(fault) == expected
    with pytest.raises(UpstreamUnavailable) as caught, map_faults("registry.test"):
        raise fault
    assert str(caught.value) == f"registry.test: {expected}"
    assert caught.value.__cause__ is fault


def test_a_url_that_is_none_is_a_protocol_error() -> None:
    with pytest.raises(UpstreamProtocolError, match="not HTTP"), map_faults("registry.test"):
        raise aiohttp.InvalidURL("http://x y")


def test_a_name_that_no_host_can_have_is_a_protocol_error() -> None:
    with pytest.raises(UpstreamProtocolError, match="no host"), map_faults("registry..test"):
        "registry..test".encode("idna")


def test_our_own_mistakes_are_not_translated() -> None:
    with pytest.raises(KeyError), map_faults("registry.test"):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://registry.test/v2/", "registry.test"),
        ("https://registry.test:443/", "registry.test"),
        ("https://user:secret@registry.test:5000/", "registry.test:5000"),
        ("http://[::1]:5000/", "[::1]:5000"),
    ],
)
def test_a_place_is_host_and_port(url: str, expected: str) -> None:
    assert place_of(URL(url)) == expected
