"""Heads that were read once are known again, byte for byte; secrets and bodies are not kept."""

import pytest

from server.limits import Limits
from server.request import KnownHeads, Request, check_request

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"


def request(*pairs: tuple[bytes, bytes]) -> Request:
    return check_request(HEAD, b"GET", b"/v2/", [(b"Host", b"x"), *pairs], Limits())


def test_the_same_bytes_are_the_same_request() -> None:
    heads = KnownHeads()
    heads.add(HEAD, request())
    assert heads.find(bytes(bytearray(HEAD))) == request()


@pytest.mark.parametrize("other", [HEAD[:-1], HEAD + b"\r\n", HEAD.lower(), HEAD + HEAD, b""])
def test_other_bytes_are_unknown(other: bytes) -> None:
    heads = KnownHeads()
    heads.add(HEAD, request())
    assert heads.find(other) is None


@pytest.mark.parametrize(
    "pair", [(b"Authorization", b"Basic eDp5"), (b"Content-Length", b"1")], ids=["secret", "body"]
)
def test_credentials_and_bodies_are_not_kept(pair: tuple[bytes, bytes]) -> None:
    heads = KnownHeads()
    heads.add(HEAD, request(pair))
    assert heads.find(HEAD) is None


def test_long_heads_are_not_kept() -> None:
    heads = KnownHeads()
    long = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"x" * 1_024)
    heads.add(long, request())
    assert heads.find(long) is None
