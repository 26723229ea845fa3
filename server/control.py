"""The server's end of `control.sock`: operators' acts on a cache that is being served from.

Invariant: one command a connection, and one reply, whatever comes. Commands are carried out while
clients are served; those under way when the server stops are broken off, as a crash would, and
what they had begun is finished at the next start.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from engine.cache import Cache
from engine.errors import CacheError
from server.control_acts import carry_out
from server.control_messages import (
    MAX_LINE_BYTES,
    Command,
    Failed,
    Reply,
    Running,
    Status,
    decode_command,
    encode,
)
from server.control_socket import listen
from server.counters import Counters

logger = logging.getLogger(__name__)

# To say a command once connected; tools do so at once.
_PATIENCE_S = 10.0


class Control:
    """Carries out commands; `counters` know how clients are served."""

    def __init__(self, cache: Cache, counters: Counters) -> None:
        self._cache = cache
        self._counters = counters
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection, in a task that `aclose` ends."""
        task = asyncio.create_task(self._serve(reader, writer), name="control")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Break off what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                line = await reader.readline()
            reply = await self.answer(line)
            writer.write(encode(reply))
            await writer.drain()
        except (TimeoutError, ValueError, OSError) as exc:
            logger.info("control connection dropped cause=%r", exc)
        finally:
            writer.close()

    async def answer(self, line: bytes) -> Reply:
        """Carry out the command in `line`, or say why not."""
        try:
            return await self._act(decode_command(line))
        except (msgspec.DecodeError, CacheError) as exc:
            logger.warning("control command failed cause=%s", exc)
            return Failed(str(exc))

    async def _act(self, command: Command) -> Reply:
        match command:
            case Status():
                return self._describe()
            case _:
                logger.info("control command=%r", command)
                return await carry_out(self._cache.acts, command)

    def _describe(self) -> Running:
        space, counted = self._cache.space, self._counters.snapshot()
        return Running(
            os.getpid(),
            counted.started_at,
            counted.count_by_status(),
            space.stored_bytes,
            space.reserved_bytes,
            space.capacity_bytes,
        )


@asynccontextmanager
async def open_control(cache: Cache, counters: Counters, path: Path) -> AsyncIterator[Control]:
    """Take commands at `path` while the block lasts.

    Where no socket can be made, clients are served all the same; that is logged.
    """
    control = Control(cache, counters)
    try:
        sock = listen(path)
    except OSError as exc:
        logger.warning(
            "no control socket path=%s cause=%s action=stop the server to purge, pin or quarantine",
            path,
            exc,
        )
        yield control
        return
    server = await asyncio.start_unix_server(control.accept, sock=sock, limit=MAX_LINE_BYTES)
    try:
        yield control
    finally:
        server.close()
        with suppress(FileNotFoundError):
            os.unlink(path)
        await control.aclose()
