"""How to have a cache store nothing, and how to read a part of what it streams."""

import asyncio
from contextlib import aclosing

from engine.cache import Cache
from engine.names import Digest
from engine.reader import Reader
from tests.fakes.caches import BUSYBOX, load_piece


def limit(cache: Cache, capacity_bytes: int) -> None:
    """Set the budget, and have no patience with eviction."""
    cache._store.space.resize(capacity_bytes)
    cache._store.room._patience_s = 0.0


async def open_reader(cache: Cache, digest: Digest) -> Reader:
    """Begin to read a blob that is not here."""
    reader = (await cache.get_blob(BUSYBOX, digest)).reader
    assert reader is not None
    await reader.wait_open()
    reader.expose()
    return reader


async def read_part(reader: Reader, start: int, end: int) -> bytes:
    """Read so much and leave the pieces, but not the reader."""
    async with aclosing(reader.pieces(start, end)) as pieces:
        return b"".join([load_piece(piece) async for piece in pieces])


async def fills_ended(cache: Cache) -> None:
    """Wait until no fill is under way."""
    while tasks := [running.task for running in cache._blobs._leads if running.task]:
        await asyncio.wait(tasks)
