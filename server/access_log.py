"""One line per exchange, written by a thread that nobody waits for.

Invariant: the loop never waits for the log's reader. At most `MAX_QUEUED_BYTES` of lines wait; what
comes beyond is dropped, counted, and reported once there is room again.

Lines are rendered on the loop, about 1 µs each, and handed over in batches: a thread that rendered
them would hold the interpreter's lock for just as long, and wake for every line.
Neither `Authorization` nor a query is ever in a line.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue
from time import time

import msgspec

from server.exchange import Exchange
from server.logs import format_time, render_fields
from server.settings import LogFormat

logger = logging.getLogger(__name__)

MAX_QUEUED_BYTES = 8 * 1024 * 1024
_BATCH_BYTES = 256 * 1024
_BATCH_S = 0.2  # a line is this late at most, where its reader keeps up
# How long a stopping server waits for a reader that does not read.
_CLOSE_S = 5.0

# Requests of a fleet are alike: their parts are rendered once. Each may be 8 KiB long.
_MAX_PARTS = 512

_quote = msgspec.json.encode


class Renderer:
    """Renders lines in one format. The time's text is made once a second."""

    def __init__(self, log_format: LogFormat, fields: dict[str, str]) -> None:
        last = render_fields(log_format, fields).encode().replace(b"%", b"%%")
        self._format = log_format
        if log_format is LogFormat.TEXT:
            self._what, self._how, self._who = _text_what, _text_how, _text_who
            self._name = b" request_id=%b"
            self._line = b"%b%b status=%d bytes_sent=%d duration_s=%f%b%b" + last + b"\n"
        else:
            self._what, self._how, self._who = _json_what, _json_how, _json_who
            self._name = b',"request_id":"%b"'
            numbers = b'"status":%d,"bytes_sent":%d,"duration_s":%f'
            self._line = b"%b%b," + numbers + b"%b%b" + last + b"}\n"
        self._second = -1
        self._head = b""

    def render(self, exchange: Exchange, sent_bytes: int, duration_s: float, now: float) -> bytes:
        """Render the line of an exchange that ended at `now` (unix seconds), with its line feed."""
        if int(now) != self._second:
            self._second = int(now)
            self._head = self._render_head(format_time(now))
        who = self._who(exchange.remote, exchange.header(b"user-agent") or b"", exchange.cause)
        if exchange.request_id:
            who = self._name % exchange.request_id.encode() + who
        return self._line % (
            self._head,
            self._what(exchange.method, exchange.target),
            exchange.status,
            sent_bytes,
            duration_s,
            self._how(exchange.cache_status, exchange.upstream, exchange.digest),
            who,
        )

    def _render_head(self, at: str) -> bytes:
        match self._format:
            case LogFormat.TEXT:
                return f"{at} info access ".encode()
            case LogFormat.JSON:
                return f'{{"level":"info","msg":"access","time":"{at}",'.encode()
            case LogFormat.LOGSTASH:
                return (
                    f'{{"@timestamp":"{at}","@version":"1","level":"info","message":"access",'
                ).encode()


def _path_of(target: bytes) -> bytes:
    """Quote the path. The query stays out: it may hold a secret."""
    return _quote(target.partition(b"?")[0].decode("latin-1"))


@lru_cache(_MAX_PARTS)
def _text_what(method: bytes, target: bytes) -> bytes:
    return b"method=%b path=%b" % (method.decode("latin-1").encode(), _path_of(target))


@lru_cache(_MAX_PARTS)
def _text_how(cache_status: str, upstream: str, digest: str) -> bytes:
    return b" cache_status=%b upstream=%b digest=%b" % (
        _quote(cache_status),
        upstream.encode() or b"-",
        digest.encode() or b"-",
    )


@lru_cache(_MAX_PARTS)
def _text_who(remote: str, agent: bytes, cause: str) -> bytes:
    return b" remote=%b user_agent=%b cause=%b" % (
        remote.encode(),
        _quote(agent.decode("latin-1")),
        _quote(cause),
    )


@lru_cache(_MAX_PARTS)
def _json_what(method: bytes, target: bytes) -> bytes:
    return b'"method":%b,"path":%b' % (_quote(method.decode("latin-1")), _path_of(target))


@lru_cache(_MAX_PARTS)
def _json_how(cache_status: str, upstream: str, digest: str) -> bytes:
    values = (_quote(cache_status), _quote(upstream), _quote(digest))
    return b',"cache_status":%b,"upstream":%b,"digest":%b' % values


@lru_cache(_MAX_PARTS)
def _json_who(remote: str, agent: bytes, cause: str) -> bytes:
    values = (_quote(remote), _quote(agent.decode("latin-1")), _quote(cause))
    return b',"remote":%b,"user_agent":%b,"cause":%b' % values


class AccessLog:
    """An observer of exchanges that writes a line of each to a file descriptor.

    `now` gives unix seconds. Made on a running loop; `aclose` it.
    """

    def __init__(self, fd: int, renderer: Renderer, now: Callable[[], float] = time) -> None:
        self._fd = fd
        self._renderer = renderer
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._handed_bytes = 0  # moved by the loop only
        self._written_bytes = 0  # moved by the thread only
        self.dropped_count = 0  # lines, since the start
        self._reported_count = 0  # of them
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        # A daemon, so that a reader who never reads does not keep the process.
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
        """Note an exchange; drops it where too much waits already."""
        waiting = self._batch_bytes + self._handed_bytes - self._written_bytes
        if waiting > MAX_QUEUED_BYTES:
            self.dropped_count += 1
            return
        line = self._renderer.render(exchange, sent_bytes, duration_s, self._now())
        self._batch.append(line)
        self._batch_bytes += len(line)
        if self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(_BATCH_S, self._hand_over)

    async def aclose(self) -> None:
        """Write what waits and stop the thread, for at most 5 s."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_S)
        if self._thread.is_alive():
            logger.warning("access log not written: its reader does not read")

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._batch:
            self._queue.put(b"".join(self._batch))
            self._handed_bytes += self._batch_bytes
            self._batch.clear()
            self._batch_bytes = 0
        unreported_count = self.dropped_count - self._reported_count
        if unreported_count:
            logger.warning("access log lines dropped count=%d", unreported_count)
            self._reported_count = self.dropped_count

    def _write_all(self) -> None:
        """The thread: write until None comes; after a failed write, only take and forget."""
        is_broken = False
        while (batch := self._queue.get()) is not None:
            if not is_broken:
                try:
                    _write(self._fd, batch)
                except OSError as exc:
                    is_broken = True
                    logger.error("access log ends: writing failed cause=%s", exc)
            self._written_bytes += len(batch)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
