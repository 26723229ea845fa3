"""What tests of the upstream client share: an impatient registry, and reading a body whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from engine.names import Digest, Repository
from engine.settings import UpstreamSettings
from engine.upstream.api import BlobStream
from engine.upstream.limits import Limits
from engine.upstream.registry import Registry

BUSYBOX = Repository("library/busybox")
UNKNOWN = Digest("sha256:" + "0" * 64)

# Nothing waits for long, and no breaker opens unless a test wants it.
QUICK = Limits(
    attempt_s=1.0,
    stall_s=0.2,
    backoff_first_s=0.005,
    backoff_max_s=0.02,
    breaker_after_s=1000.0,
)
WITH_BREAKER = replace(QUICK, breaker_after_s=0.0, breaker_first_s=1000.0, breaker_max_s=1000.0)


@asynccontextmanager
async def open_registry(
    settings: UpstreamSettings, limits: Limits = QUICK
) -> AsyncIterator[Registry]:
    """Make a registry and close it."""
    registry = Registry(settings, limits)
    try:
        yield registry
    finally:
        await registry.aclose()


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


async def read_all(stream: BlobStream) -> bytes:
    """Read a body to its end, and close it."""
    try:
        return b"".join([piece async for piece in stream])
    finally:
        await stream.aclose()


async def read_some(stream: BlobStream) -> tuple[bytes, Exception | None]:
    """Read a body until it ends or breaks; give what came, and why it broke."""
    pieces: list[bytes] = []
    try:
        async for piece in stream:
            pieces.append(piece)  # noqa: PERF401 -- what came before an error is kept
    except Exception as exc:  # noqa: BLE001 -- handed to the test, which looks at it
        return b"".join(pieces), exc
    finally:
        await stream.aclose()
    return b"".join(pieces), None
