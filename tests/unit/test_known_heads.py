"""Heads that were read once are known again, byte for byte; secrets and bodies are not kept."""

import pytest

from server.limits import Limits
from server.request import KnownHeads, Request, check_request, drop_trace

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


TRACE = b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"


@pytest.mark.parametrize("at", [HEAD.index(b"Host"), len(HEAD) - 2], ids=["first", "last"])
def test_a_trace_is_left_out_wherever_it_stands(at: int) -> None:
    assert drop_trace(HEAD[:at] + TRACE + HEAD[at:]) == HEAD


@pytest.mark.parametrize(
    "line",
    [
        TRACE.replace(b"-01", b"-0"),
        TRACE.replace(b"-01", b"-011"),
        TRACE.replace(b"0af", b"0 f"),
        TRACE.replace(b"0af", b"0Af"),
        TRACE.replace(b"0af", b"0\nf"),
        TRACE.replace(b"-01\r\n", b"-01 \r\n"),
        TRACE.replace(b"\r\n", b"\n"),
        b"X-" + TRACE,
        b"Traceparent: 00-\r\n",
    ],
)
def test_what_is_not_quite_a_trace_stays(line: bytes) -> None:
    head = HEAD[:-2] + line + b"\r\n"
    assert drop_trace(head) == head
