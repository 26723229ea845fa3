"""A client's bytes to the whole of the request path: transport, checks, routes, API, cache.

Invariant that is fuzzed: whatever arrives, and however it is cut, what leaves is a sequence of
whole HTTP responses, none of them a 500, then the connection ends; nothing raises.
"""

import asyncio
import logging
import re
import tempfile
from itertools import pairwise
from pathlib import Path

from engine.cache import Cache
from engine.settings import EngineSettings
from server.api import Api
from server.endpoint import Endpoint
from server.limits import Limits
from server.protocol import Connection
from server.settings import ServerSettings
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.memory_upstream import SETTINGS, MemoryUpstream
from tests.fakes.small_caches import small_cache
from tests.fakes.transport import MemoryTransport

# Small, so that what is too large is met often.
_LIMITS = Limits(head_bytes=2_000, head_lines=20, target_bytes=600)
_LAYER = b"0123456789" * 10_000
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [A-Z][A-Za-z -]*\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
_BODILESS = (b"204", b"304")


class Broken(AssertionError):
    """What left is not what HTTP/1.1 promises."""


class RequestTarget:
    """A mirror without a network, made once; call it with what a client sends."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._endpoint = self._runner.run(self._open())

    def __call__(self, data: bytes) -> None:
        """The first two bytes say how the others are cut."""
        self._runner.run(self._converse(cut(data[2:], data[:2])))

    def close(self) -> None:
        """End the mirror."""
        self._runner.run(self._close())
        self._runner.close()

    async def _open(self) -> Endpoint:
        self._directory = tempfile.TemporaryDirectory(prefix="moorage-fuzz-")
        upstream = MemoryUpstream()
        self._cached = small_cache(Path(self._directory.name), upstream)
        cache = await self._cached.__aenter__()
        image = upstream.content.add_image(BUSYBOX.repository, "1.35", (_LAYER,))
        await read_blob(cache, BUSYBOX, image.layers[0])
        return Endpoint(self._make_api(cache), limits=_LIMITS)

    def _make_api(self, cache: Cache) -> Api:
        engine = EngineSettings(Path(self._directory.name), (SETTINGS,))
        logging.getLogger("server").addFilter(_raise_exceptions)
        return Api(cache, ServerSettings(engine))

    async def _close(self) -> None:
        await self._endpoint.drain(0)
        await self._cached.__aexit__(None, None, None)
        self._directory.cleanup()

    async def _converse(self, pieces: list[bytes]) -> None:
        connection = Connection(self._endpoint)
        transport = MemoryTransport(connection)
        output = b""
        for piece in pieces:
            if not transport.is_closing():
                connection.data_received(piece)
                await asyncio.sleep(0)
                output += transport.read_output()
        if not transport.is_closing():
            connection.eof_received()
        while self._endpoint.connections:
            await asyncio.sleep(0)
            output += transport.read_output()
        output += transport.read_output()
        transport.finish()
        check_responses(output, has_head=b"HEAD" in b"".join(pieces))


def cut(data: bytes, where: bytes) -> list[bytes]:
    """Cut `data` at up to two places."""
    edges = sorted({0, len(data), *(at % (len(data) + 1) for at in where)})
    return [data[start:end] for start, end in pairwise(edges)]


def check_responses(output: bytes, *, has_head: bool) -> None:
    """Read responses one after the other to the last byte; raises `Broken`.

    With `has_head` a response may be that of a HEAD: its body is told by what follows.
    """
    at = 0
    while at < len(output):
        found = _STATUS.match(output, at)
        end = output.find(b"\r\n\r\n", at)
        if found is None or end < 0 or found[1] == b"500":
            raise Broken(output[at : at + 200])
        at = end + 4
        length = _LENGTH.search(output, found.end() - 2, at)
        body_bytes = int(length[1]) if length and found[1] not in _BODILESS else 0
        is_bodiless = has_head and (at == len(output) or output.startswith(b"HTTP/1.1 ", at))
        at += 0 if is_bodiless else body_bytes
    if at > len(output):
        raise Broken(f"{at - len(output)} bytes are missing")


def _raise_exceptions(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] is not None:
        raise record.exc_info[1]
    return False
