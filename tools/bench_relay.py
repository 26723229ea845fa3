"""A link of limited speed before the upstream: all connections share it, as a site shares its line.

Invariant: within any time t at most `rate * t + burst` bytes of answers pass, however many
connections there are; pieces pass in the order in which they came.

Run as `python -m tools.bench_relay HOST:PORT BYTES_PER_SECOND`; it says where it listens.
"""

import asyncio
import contextlib
import sys
from dataclasses import dataclass

import uvloop

_PIECE_BYTES = 64 * 1024
# What a switch's buffer would hold; a relay that wakes late catches up by it.
_BURST_BYTES = 1024 * 1024


@dataclass(slots=True)
class TokenBucket:
    """The shared limit. Pure: `now` is in seconds of any clock that does not go back."""

    rate_bytes_s: float
    burst_bytes: float
    _free_at: float = 0.0  # when everything that was let through will have passed

    def reserve(self, count_bytes: int, now: float) -> float:
        """Let `count_bytes` through after all before; return the seconds to wait first."""
        earliest = now - self.burst_bytes / self.rate_bytes_s
        self._free_at = max(self._free_at, earliest) + count_bytes / self.rate_bytes_s
        return max(0.0, self._free_at - now)


class Relay:
    """Relays connections to one address."""

    def __init__(self, host: str, port: int, bucket: TokenBucket) -> None:
        self._host = host
        self._port = port
        self._bucket = bucket

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until both of its directions have ended."""
        there, to_there = await asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, to_there, None))
                group.create_task(_pump(there, writer, self._bucket))
        finally:
            to_there.close()
            writer.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bucket: TokenBucket | None
) -> None:
    clock = asyncio.get_running_loop().time
    with contextlib.suppress(ConnectionError):  # one side has gone, so there is no more to relay
        while piece := await reader.read(_PIECE_BYTES):
            if bucket is not None and (delay_s := bucket.reserve(len(piece), clock())):
                await asyncio.sleep(delay_s)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def run(address: str, rate_bytes_s: float) -> None:
    """Relay to `address` (host:port) until cancelled."""
    host, _, port = address.rpartition(":")
    relay = Relay(host, int(port), TokenBucket(rate_bytes_s, _BURST_BYTES))
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=_PIECE_BYTES)
    bound, bound_port = server.sockets[0].getsockname()[:2]
    print(f"listening addr={bound}:{bound_port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], float(sys.argv[2])))
