"""A blob leaves while it is being filled: each client follows it at its own pace, from the partial
or, where it is not stored, from what the engine keeps of it.

Invariant: a head leaves only when upstream has said yes or the bytes are here, and a body is
finished only when the fill has verified all that was promised; otherwise `BodyCut` is raised and
the connection must be cut.
The reader is the caller's to close.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from engine.cache import Cache
from engine.errors import CacheError, UpstreamUnavailable
from engine.reader import FileSpan, Reader
from server.conditional import Part
from server.exchange import Exchange
from server.response import blob_fields, build_head, content_range, quote_etag
from server.routes import BlobRoute
from server.side import SideFetch, plan_side_fetch
from server.stored import asked_range

# A Range needs the size. Upstreams that do not tell it are rare: wait for the end of the fill, but
# not past the time that containerd waits for a head (30 s); then all of the blob is the answer.
SIZE_WAIT_S = 20.0
# Content that is held back whole has no head until its end has come, so a body that stalls holds
# the head up, too. A lead whose upstream does not answer gives up earlier, and knows why.
HEAD_WAIT_S = 27.0


class BodyCut(Exception):
    """The body broke off after its head had left; the cause is chained."""


@dataclass(frozen=True, slots=True)
class _Extent:
    """What is to be sent. `size_bytes` None = until the fill's end, wherever that is."""

    size_bytes: int | None
    part: Part | None

    @property
    def start(self) -> int:
        return self.part.start if self.part else 0

    @property
    def end(self) -> int | None:
        return self.part.end if self.part else self.size_bytes


class FillSender:
    """Sends what is being filled."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def send(
        self,
        exchange: Exchange,
        route: BlobRoute,
        reader: Reader,
        last_lines: Callable[[], bytes],
    ) -> None:
        """Answer with the blob, or the part of it that is asked for.

        `last_lines` is called when the head is about to leave: by then it may be known that the
        blob is not stored.
        Before the head left it raises the fill's error or `RangeUnsatisfiable`; after it `BodyCut`;
        any time `ClientGone`.
        """
        extent = await _find_extent(exchange, reader)
        side = self._find_side(route, reader, extent)
        try:
            if side is not None:
                reader.step_aside()
                await side.open()
            reader.expose()
            await _start(exchange, reader, extent, last_lines())
            offset = extent.start if side is None else await side.send(exchange)
            await _follow(exchange, reader, offset, extent.end)
        finally:
            if side is not None:
                await side.aclose()
        exchange.finish()

    def _find_side(self, route: BlobRoute, reader: Reader, extent: _Extent) -> SideFetch | None:
        if extent.part is None or extent.size_bytes is None:
            return None
        part = plan_side_fetch(extent.part, extent.size_bytes, reader.released_bytes)
        if part is None:
            return None
        location = route.asked.location
        pieces = self._cache.open_side_fetch(location, route.digest, part.start, part.end)
        return SideFetch(pieces, part)


async def _find_extent(exchange: Exchange, reader: Reader) -> _Extent:
    size_bytes = await _wait_open(reader)
    spec = asked_range(exchange, quote_etag(reader.digest))
    if spec is not None and size_bytes is None:
        size_bytes = await _wait_size(reader)
    if spec is None or size_bytes is None:
        return _Extent(size_bytes, None)
    return _Extent(size_bytes, spec.resolve(size_bytes))


async def _wait_open(reader: Reader) -> int | None:
    """Wait until a head may leave, but no longer than a client would; the fill goes on."""
    try:
        async with asyncio.timeout(HEAD_WAIT_S):
            return await reader.wait_open()
    except TimeoutError as exc:
        message = f"{reader.digest} has not come within {HEAD_WAIT_S:g} s; it is still awaited"
        raise UpstreamUnavailable(message) from exc


async def _wait_size(reader: Reader) -> int | None:
    """Wait for the verified end, which tells the size; None where that takes too long."""
    try:
        async with asyncio.timeout(SIZE_WAIT_S):
            return await reader.wait_end()
    except TimeoutError:
        return None


async def _start(exchange: Exchange, reader: Reader, extent: _Extent, last_lines: bytes) -> None:
    fields = blob_fields(reader.digest)
    exchange.status = 200
    if extent.part is not None and extent.size_bytes is not None:
        exchange.status = 206
        fields.append(content_range(extent.part, extent.size_bytes))
    length = None if extent.end is None else extent.end - extent.start
    await exchange.start(build_head(exchange.status, fields) + last_lines, length)


async def _follow(exchange: Exchange, reader: Reader, offset: int, end: int | None) -> None:
    """Send from `offset` to `end` as it is released; raises `BodyCut`."""
    try:
        async with aclosing(reader.pieces(offset, end)) as pieces:
            async for piece in pieces:
                if isinstance(piece, FileSpan):
                    await exchange.write_file(piece.fd, piece.start, piece.end)
                else:
                    await exchange.write(piece)
    except CacheError as error:
        raise BodyCut(str(error)) from error
