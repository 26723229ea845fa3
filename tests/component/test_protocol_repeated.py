"""A request that comes again is answered again, whoever sends it and however it arrives."""

from pathlib import Path

import pytest

from server.limits import Limits
from tests.fakes.transport import open_site, pattern

pytestmark = pytest.mark.anyio

HEAD = b"GET /hit/10 HTTP/1.1\r\nHost: x\r\nX-Test: one\r\n\r\n"


async def test_a_known_head_is_answered_on_every_connection(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        for _ in range(3):
            client = await site.connect()
            for _ in range(3):
                client.send(HEAD)
                assert (await client.read()).body == pattern(10)
        assert site.handler.targets == [b"/hit/10"] * 9
        assert site.handler.headers == [b"one"] * 9


async def test_a_known_head_is_known_in_a_pipeline_and_in_pieces(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(HEAD)
        await client.read()
        client.send(HEAD * 3 + HEAD[:20])
        for _ in range(3):
            assert (await client.read()).status == 200
        client.send(HEAD[20:])
        assert (await client.read()).status == 200
        assert site.handler.targets == [b"/hit/10"] * 5


async def test_a_head_that_differs_in_one_header_is_another_request(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        for value in (b"one", b"two", b"one"):
            client.send(HEAD.replace(b"one", value))
            await client.read()
        assert site.handler.headers == [b"one", b"two", b"one"]


async def test_a_known_head_waits_its_turn_behind_a_response(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(HEAD)
        await client.read()
        client.send(b"GET /late/5 HTTP/1.1\r\nHost: x\r\n\r\n")
        await site.handler.started.wait()
        client.send(HEAD)
        site.handler.release.set()
        assert (await client.read()).body == pattern(5)
        assert (await client.read()).body == pattern(10)


async def test_a_known_head_does_not_keep_a_connection_that_drains(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        client = await site.connect()
        client.send(HEAD)
        assert "connection" not in (await client.read()).fields
        site.endpoint.is_draining = True
        client.send(HEAD)
        assert (await client.read()).fields["connection"] == "close"


async def test_closing_is_known_with_the_head(tmp_path: Path) -> None:
    head = b"GET /hit/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with open_site(tmp_path) as site:
        for _ in range(3):
            client = await site.connect()
            client.send(head)
            answer = await client.read()
            assert answer.fields["connection"] == "close"
            assert await client.read_end() == b""


async def test_what_is_too_large_is_refused_each_time(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(target_bytes=5)) as site:
        for _ in range(2):
            client = await site.connect()
            client.send(HEAD)
            assert (await client.read()).status == 414
