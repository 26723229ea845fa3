"""What could be read in two ways, or is too large, is refused, and the connection ends with it."""

import json
from pathlib import Path

import pytest

from server.limits import Limits
from tests.fakes.transport import open_site, pattern

pytestmark = pytest.mark.anyio

HOST = b"Host: x\r\n"


def get(fields: bytes, line: bytes = b"GET /hit/1 HTTP/1.1") -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


REFUSED: dict[str, tuple[int, bytes]] = {
    # Two lengths of one message (RFC 9112 §6.3)
    "length and coding": (400, get(HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n")),
    "coding and length": (400, get(HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
    "zero length and coding": (
        400, get(HOST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
    "two lengths": (400, get(HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n")),
    "equal lengths": (400, get(HOST + b"Content-Length: 3\r\ncontent-length: 3\r\n")),
    "list of lengths": (400, get(HOST + b"Content-Length: 3, 3\r\n")),
    "signed length": (400, get(HOST + b"Content-Length: +3\r\n")),
    "negative length": (400, get(HOST + b"Content-Length: -3\r\n")),
    "hexadecimal length": (400, get(HOST + b"Content-Length: 0x3\r\n")),
    "empty length": (400, get(HOST + b"Content-Length: \r\n")),
    "huge length": (400, get(HOST + b"Content-Length: 99999999999999999999999\r\n")),
    "length with a space": (400, get(HOST + b"Content-Length: 1 2\r\n")),
    "two codings": (400, get(HOST + b"Transfer-Encoding: chunked\r\n" * 2)),
    "coding in HTTP/1.0": (400, get(b"Transfer-Encoding: chunked\r\n", b"GET /hit/1 HTTP/1.0")),
    "list of codings": (501, get(HOST + b"Transfer-Encoding: gzip, chunked\r\n")),
    "unknown coding": (400, get(HOST + b"Transfer-Encoding: gzip\r\n")),
    "almost chunked": (400, get(HOST + b"Transfer-Encoding: xchunked\r\n")),
    "chunked not last": (400, get(HOST + b"Transfer-Encoding: chunked, identity\r\n")),
    # Lines and names (RFC 9112 §2.2, §5)
    "bare LF in the request line": (400, b"GET /hit/1 HTTP/1.1\n" + HOST + b"\r\n"),
    "bare LF in a field": (400, get(HOST + b"A: b\nC: d\r\n")),
    "bare LF only": (400, b"GET /hit/1 HTTP/1.1\nHost: x\n\n"),
    "bare CR in a field": (400, get(HOST + b"A: b\rC: d\r\n")),
    "bare CR for the end": (400, b"GET /hit/1 HTTP/1.1\rHost: x\r\r\r\n\r\n"),
    "NUL in a value": (400, get(HOST + b"A: b\0c\r\n")),
    "NUL in a name": (400, get(HOST + b"A\0: b\r\n")),
    "control in a value": (400, get(HOST + b"A: b\x01c\r\n")),
    "obsolete folding": (400, get(HOST + b"A: b\r\n c\r\n")),
    "obsolete folding by tab": (400, get(HOST + b"A: b\r\n\tc\r\n")),
    "space before the first field": (400, get(b" A: b\r\n" + HOST)),
    "space before the colon": (400, get(HOST + b"Content-Length : 3\r\n")),
    "tab before the colon": (400, get(HOST + b"Content-Length\t: 3\r\n")),
    "space in a name": (400, get(HOST + b"bad name: x\r\n")),
    "colon for a name": (400, get(HOST + b": x\r\n")),
    "no colon": (400, get(HOST + b"nothing\r\n")),
    "brackets in a name": (400, get(HOST + b"a[b]: x\r\n")),
    "high byte in a name": (400, get(HOST + b"a\x80: x\r\n")),
    # Host (RFC 9112 §3.2)
    "no Host": (400, get(b"Accept: */*\r\n")),
    "two Hosts": (400, get(HOST + b"Host: y\r\n")),
    "equal Hosts": (400, get(HOST + HOST)),
    "path in Host": (400, get(b"Host: x/y\r\n")),
    "user in Host": (400, get(b"Host: u@x\r\n")),
    "space in Host": (400, get(b"Host: x y\r\n")),
    "high byte in Host": (400, get(b"Host: x\xff\r\n")),
    "user in an absolute target": (400, get(HOST, b"GET http://u:p@x/hit/1 HTTP/1.1")),
    # The request line (RFC 9112 §3)
    "two spaces before the target": (400, get(HOST, b"GET  /hit/1 HTTP/1.1")),
    "two spaces after the target": (400, get(HOST, b"GET /hit/1  HTTP/1.1")),
    "space after the version": (400, get(HOST, b"GET /hit/1 HTTP/1.1 ")),
    "space in the target": (400, get(HOST, b"GET /hit /1 HTTP/1.1")),
    "tab in the request line": (400, get(HOST, b"GET\t/hit/1 HTTP/1.1")),
    "space before the method": (400, get(HOST, b" GET /hit/1 HTTP/1.1")),
    "method in lower case": (400, get(HOST, b"get /hit/1 HTTP/1.1")),
    "unknown method": (400, get(HOST, b"FETCH /hit/1 HTTP/1.1")),
    "no version": (400, get(b"", b"GET /hit/1")),
    "HTTP/0.9": (505, get(HOST, b"GET /hit/1 HTTP/0.9")),
    "HTTP/1.2": (400, get(HOST, b"GET /hit/1 HTTP/1.2")),
    "HTTP/2.0": (505, get(HOST, b"GET /hit/1 HTTP/2.0")),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "RTSP": (400, get(HOST, b"GET /hit/1 RTSP/1.0")),
    "ICE": (400, get(HOST, b"SOURCE /hit/1 ICE/1.0")),
    "relative target": (400, get(HOST, b"GET hit/1 HTTP/1.1")),
    "fragment": (400, get(HOST, b"GET /hit/1#x HTTP/1.1")),
    "high byte in the target": (400, get(HOST, b"GET /hit/\xff HTTP/1.1")),
    "LF before the request": (400, b"\n" + get(HOST)),
    # Sizes
    "long target": (414, get(HOST, b"GET /hit/" + b"1" * 8192 + b" HTTP/1.1")),
    "endless target": (414, b"GET /hit/" + b"1" * 40_000),
    "large header": (431, get(HOST + b"A: " + b"b" * 40_000 + b"\r\n")),
    "many lines": (431, get(HOST + b"A: b\r\n" * 100)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(tmp_path: Path, name: str) -> None:
    status, request = REFUSED[name]
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(request + get(HOST))  # what follows is not looked at
        response = await client.read()
        assert response.status == status
        assert response.fields["connection"] == "close"
        assert response.fields["content-type"] == "application/json"
        assert response.fields["cache-status"] == "moorage; detail=not-forwarded"
        assert json.loads(response.body)["errors"][0]["message"] == site.records.all[0].cause
        assert await client.read_end() == b""
        assert site.handler.targets == []
        await client.aclose()
        await site.endpoint.wait_empty()
        assert [over.status for over in site.records.all] == [status]
        assert site.records.all[0].cause != ""


ACCEPTED: dict[str, bytes] = {
    "empty Host": get(b"Host:\r\n"),
    "IPv6 Host": get(b"Host: [::1]:5000\r\n"),
    "white space around a value": get(b"Host: \t x \t\r\n"),
    "all token characters in a name": get(HOST + b"!#$%&'*+-.^_`|~09azAZ: b\r\n"),
    "empty value": get(HOST + b"A:\r\n"),
    "obs-text in a value": get(HOST + b"A: \xe9\r\n"),
    "repeated field": get(HOST + b"Accept: a\r\nAccept: b\r\n"),
    "empty lines before": b"\r\n\r\n" + get(HOST),
    "HTTP/1.0 without Host": get(b"Connection: keep-alive\r\n", b"GET /hit/1 HTTP/1.0"),
    "absolute target": get(HOST, b"GET HTTP://mirror:5000/hit/1 HTTP/1.1"),
    "as many lines as may be": get(HOST + b"A: b\r\n" * 98),
    "as long a target as may be": get(HOST, b"GET /hit/1?" + b"a" * 8181 + b" HTTP/1.1"),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_accepted(tmp_path: Path, name: str) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        for _ in range(2):
            client.send(ACCEPTED[name])
            response = await client.read()
            assert response.status == 200
            assert response.body == pattern(1)


async def test_head_that_can_never_end_is_refused_at_once(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(b"GET /hit/1 HTTP/1.1\nHost: x\n\n")
        assert (await client.read()).status == 400


async def test_repeated_field_lines_are_joined_and_trimmed(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        await client.get("/hit/1", "X-Test: a", "x-test:  b \t", "X-TEST: c")
        assert site.handler.headers == [b"a, b, c"]


async def test_request_before_a_refused_one_is_answered(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(get(HOST) + get(b"") + get(HOST))
        assert (await client.read()).status == 200
        assert (await client.read()).status == 400
        assert await client.read_end() == b""


async def test_head_as_large_as_may_be_is_accepted_and_a_byte_more_is_not(tmp_path: Path) -> None:
    limit = 1000
    base = len(get(HOST + b"A: \r\n"))
    async with open_site(tmp_path, Limits(head_bytes=limit)) as site:
        client = await site.connect()
        client.send(get(HOST + b"A: " + b"b" * (limit - base) + b"\r\n"))
        assert (await client.read()).status == 200
        client.send(get(HOST + b"A: " + b"b" * (limit - base + 1) + b"\r\n"))
        assert (await client.read()).status == 431
