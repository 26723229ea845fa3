"""A cache on a temporary directory in front of a scripted upstream, and how to read from it."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from engine.cache import Cache
from engine.hot import Content, OpenFile
from engine.lead import Patience
from engine.lookup import BlobLookup
from engine.names import Digest, Location, Repository
from engine.reader import FileSpan, Reader
from engine.settings import EngineSettings, UpstreamSettings
from tests.fakes.upstream import ScriptedUpstream

QUICK = Patience(first_byte_s=5.0, resume_s=0.5, pause_s=0.001, max_pause_s=0.01)
BUSYBOX = Location("docker.io", Repository("library/busybox"))


@asynccontextmanager
async def open_cache(
    path: Path, *upstreams: UpstreamSettings, patience: Patience = QUICK
) -> AsyncIterator[Cache]:
    """Open a cache and close it, whatever happened."""
    cache = await Cache.open(EngineSettings(path, upstreams), patience=patience)
    try:
        yield cache
    finally:
        await cache.aclose()


@asynccontextmanager
async def mirror_of(
    path: Path, upstream: ScriptedUpstream, **changes: object
) -> AsyncIterator[Cache]:
    """Open a cache in front of one scripted upstream, its settings changed by keyword."""
    settings = replace(upstream.settings(), **changes)  # type: ignore[arg-type]  # by keyword
    async with open_cache(path, settings) as cache:
        yield cache


def read_content(cache: Cache, content: Content) -> bytes:
    """Read stored content as the server would."""
    body = cache.load_body(content)
    if body is not None:
        return body
    file: OpenFile = cache.open_file(content)
    try:
        return os.pread(file.fd, content.size_bytes, 0)
    finally:
        file.release()


async def read_fill(reader: Reader) -> bytes:
    """Read a fill to its end as a client would; raises the fill's error."""
    try:
        await reader.wait_open()
        reader.expose()
        async with aclosing(reader.pieces(0, None)) as pieces:
            return b"".join([load_piece(piece) async for piece in pieces])
    finally:
        reader.close()


def load_piece(piece: FileSpan | bytes) -> bytes:
    """Give a piece's bytes, wherever they are."""
    return piece if isinstance(piece, bytes) else os.pread(piece.fd, len(piece), piece.start)


async def read_blob(cache: Cache, location: Location, digest: Digest) -> bytes:
    """Get a blob whole, from wherever it is."""
    return await read_lookup(cache, await cache.get_blob(location, digest))


async def read_lookup(cache: Cache, lookup: BlobLookup) -> bytes:
    """Read what a lookup found."""
    if lookup.content is not None:
        return read_content(cache, lookup.content)
    assert lookup.reader is not None
    return await read_fill(lookup.reader)
