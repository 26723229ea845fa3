"""When a range is worth a request of its own, and how it ends."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from engine.errors import UpstreamUnavailable
from engine.fill import HELD_BACK_BYTES
from server.conditional import Part
from server.side import NEAR_BYTES, SideFetch, plan_side_fetch
from tests.fakes.exchange import FakeExchange

GIB = 1 << 30
HELD_FROM = GIB - HELD_BACK_BYTES


@pytest.mark.parametrize(
    ("part", "released_bytes", "planned"),
    [
        (Part(0, GIB), 0, None),
        (Part(NEAR_BYTES, GIB), 0, None),
        (Part(NEAR_BYTES + 1, GIB), 0, Part(NEAR_BYTES + 1, HELD_FROM)),
        (Part(NEAR_BYTES + 1, GIB), 1, None),
        (Part(500_000_000, 500_000_100), 0, Part(500_000_000, 500_000_100)),
        (Part(500_000_000, 500_000_100), 499_999_999, None),
        (Part(500_000_000, 500_000_100), 600_000_000, None),
        (Part(HELD_FROM - 1, GIB), 0, Part(HELD_FROM - 1, HELD_FROM)),
        (Part(HELD_FROM, GIB), 0, None),
        (Part(GIB - 1, GIB), 0, None),
    ],
)
def test_only_what_is_far_and_not_held_back_is_fetched_aside(
    part: Part, released_bytes: int, planned: Part | None
) -> None:
    assert plan_side_fetch(part, GIB, released_bytes) == planned


async def pieces_of(*pieces: bytes | Exception) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def never() -> AsyncGenerator[bytes, None]:
    await asyncio.Event().wait()
    yield b"never"


async def send(pieces: AsyncGenerator[bytes, None], part: Part) -> tuple[int, bytes]:
    exchange = FakeExchange(b"/")
    await exchange.start(b"HTTP/1.1 206 Partial Content\r\n", None)
    side = SideFetch(pieces, part)
    await side.open()
    offset = await side.send(exchange)
    await side.aclose()
    return offset, exchange.body


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pieces", "offset", "body"),
    [
        ((b"abc", b"de"), 15, b"abcde"),
        ((b"abc", b"defg"), 15, b"abcde"),
        ((b"abc",), 13, b"abc"),
        ((b"abc", UpstreamUnavailable("cut")), 13, b"abc"),
        ((UpstreamUnavailable("refused"),), 10, b""),
        ((), 10, b""),
    ],
)
async def test_it_tells_how_far_it_got(
    pieces: tuple[bytes | Exception, ...], offset: int, body: bytes
) -> None:
    assert await send(pieces_of(*pieces), Part(10, 15)) == (offset, body)


@pytest.mark.anyio
async def test_a_first_piece_that_does_not_come_holds_no_head_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.side.PATIENCE_S", 0.0)
    assert await send(never(), Part(10, 15)) == (10, b"")
