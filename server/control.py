"""The server's end of `control.sock`: operators' acts on a cache that is being served from.

Invariant: one command a connection, and one reply, whatever comes; only a warm tells how far it is
in several. Commands are carried out while clients are served; those under way when the server stops
are broken off, as a crash would, and what they had begun is finished at the next start.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from engine.errors import CacheError
from server.control_messages import (
    MAX_LINE_BYTES,
    Act,
    Drain,
    Failed,
    Overview,
    Reply,
    Status,
    Warm,
    decode_command,
    encode,
)
from server.control_socket import listen
from server.operating import Operator

logger = logging.getLogger(__name__)

# To say a command once connected; tools do so at once.
_PATIENCE_S = 10.0


class Control:
    """Has an operator carry out commands."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
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
            async with aclosing(self.answer(line)) as replies:
                async for reply in replies:
                    writer.write(encode(reply))
                    await writer.drain()
        except (TimeoutError, ValueError, OSError) as exc:
            logger.info("control connection dropped cause=%r", exc)
        finally:
            writer.close()

    async def answer(self, line: bytes) -> AsyncGenerator[Reply, None]:
        """Carry out the command in `line`, or say why not. Close it."""
        try:
            match decode_command(line):
                case Warm() as command:
                    async with aclosing(self._operator.warm(command)) as stages:
                        async for stage in stages:
                            yield stage
                case command:
                    yield await self._carry_out(command)
        except (msgspec.DecodeError, CacheError) as exc:
            logger.warning("control command failed cause=%s", exc)
            yield Failed(str(exc))

    async def _carry_out(self, command: Act | Status | Overview | Drain) -> Reply:
        match command:
            case Status():
                return self._operator.tell_running()
            case Overview():
                return await self._operator.tell_facts()
            case Drain():
                return self._operator.drain(command)
            case _:
                return await self._operator.act(command)


@asynccontextmanager
async def open_control(operator: Operator, path: Path) -> AsyncIterator[Control]:
    """Take commands at `path` while the block lasts.

    Where no socket can be made, clients are served all the same; that is logged.
    """
    control = Control(operator)
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
