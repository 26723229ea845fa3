"""`X-Forwarded-For`: whom a request comes from, and that nobody chooses it for himself."""

import logging

import pytest

from server.exchange import Exchange
from server.forwarded import ForwardedGate, MalformedHop, find_client
from server.networks import Networks
from tests.fakes.exchange import FakeExchange

TRUSTED = Networks(["10.0.0.0/24", "2001:db8::/64", "unix"])
PROXY = "10.0.0.5"


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, 10.0.0.7", "192.0.2.1"),
        (b"6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (b"6.6.6.6, 192.0.2.1,10.0.0.7 , 10.0.0.8", "192.0.2.1"),
        (b"nonsense, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
        (b"10.0.0.9, 10.0.0.7", "10.0.0.9"),
        (b"192.0.2.1:4711", "192.0.2.1"),
        (b"[2001:db9::1]:4711", "2001:db9::1"),
        (b"[2001:db9::1]", "2001:db9::1"),
        (b"2001:DB9::1", "2001:db9::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        (b"::ffff:6.6.6.6, ::ffff:10.0.0.7", "6.6.6.6"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxys(
    forwarded_for: bytes, client: str
) -> None:
    assert find_client(PROXY, forwarded_for, TRUSTED) == client


@pytest.mark.parametrize(
    "forwarded_for",
    [
        b"", b",", b"192.0.2.1,", b"unknown", b"192.0.2.1, unix:", b"192.0.2", b"192.0.2.1:http",
        b"[2001:db9::1", b"[2001:db9::1]x", b"192.0.2.1 10.0.0.7", b"_hidden", b"\xff", b"::1%lo",
        b"256.1.1.1", b"[192.0.2.1]x", b"192.0.2.1:123456",
    ],
)  # fmt: skip
def test_what_is_no_address_is_malformed(forwarded_for: bytes) -> None:
    with pytest.raises(MalformedHop):
        find_client(PROXY, forwarded_for, TRUSTED)


class Behind:
    """Keeps whom exchanges came from."""

    def __init__(self) -> None:
        self.remotes: list[str] = []

    def respond_now(self, exchange: Exchange) -> bool:
        self.remotes.append(exchange.remote)
        return True

    async def respond(self, exchange: Exchange) -> None:
        self.remotes.append(exchange.remote)


def pass_through(peer: str, *fields: str | None) -> list[str]:
    """Send requests from `peer` through one gate; give what addresses they had behind it."""
    behind = Behind()
    gate = ForwardedGate(behind, TRUSTED)
    for value in fields:
        headers = {} if value is None else {"x-forwarded-for": value}
        assert gate.respond_now(FakeExchange(b"/v2/", headers=headers, remote=peer))
    return behind.remotes


def test_a_trusted_proxy_is_believed_each_time() -> None:
    seen = pass_through(PROXY, "192.0.2.1", "192.0.2.2", "192.0.2.1", None)
    assert seen == ["192.0.2.1", "192.0.2.2", "192.0.2.1", PROXY]


def test_nobody_else_is_believed() -> None:
    assert pass_through("192.0.2.9", "10.0.0.5", "10.0.0.5") == ["192.0.2.9", "192.0.2.9"]


def test_a_proxy_at_the_unix_socket_is_believed_if_it_is_trusted() -> None:
    assert pass_through("unix", "192.0.2.1") == ["192.0.2.1"]


def test_after_a_malformed_field_the_proxy_is_the_client_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert pass_through(PROXY, "unknown", "unknown", "x") == [PROXY] * 3
    (record,) = caplog.records
    assert "remote=10.0.0.5 value=b'unknown'" in record.getMessage()


def test_a_long_field_is_read_but_not_kept() -> None:
    long = "6.6.6.6, " * 100 + "192.0.2.1"
    assert pass_through(PROXY, long, long) == ["192.0.2.1"] * 2


@pytest.mark.anyio
@pytest.mark.parametrize("forwarded_for", ["192.0.2.1", "10.0.0.9, 10.0.0.7", "unknown"])
async def test_an_exchange_that_waits_is_known_by_the_same_address(forwarded_for: str) -> None:
    behind = Behind()
    gate = ForwardedGate(behind, TRUSTED)
    exchange = FakeExchange(b"/v2/", headers={"x-forwarded-for": forwarded_for}, remote=PROXY)
    gate.respond_now(exchange)
    await gate.respond(exchange)
    assert behind.remotes[0] == behind.remotes[1]
