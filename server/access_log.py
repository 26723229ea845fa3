"""One line per exchange, written by a thread that nobody waits for.

Invariant: the loop never waits for the log's reader. At most `MAX_QUEUED_BYTES` of lines wait; what
comes beyond is dropped, counted, and reported once there is room again.

Lines are rendered on the loop, about 1 µs each, a batch at a time: a thread that rendered them
would hold the interpreter's lock for just as long. So the time in a line may be `_BATCH_S` late.
Neither `Authorization` nor a query is ever in a line.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from queue import SimpleQueue
from time import time

import msgspec

from server.exchange import Exchange
from server.logs import format_time, leave_query_out, render_fields
from server.settings import LogFormat, LogSettings, ServerSettings

logger = logging.getLogger(__name__)

MAX_QUEUED_BYTES = 8 * 1024 * 1024
_BATCH_LINES = 512  # rendered at once, in about half a millisecond
_BATCH_S = 0.2  # a line is this late at most, where its reader keeps up
# How long a stopping server waits for a reader that does not read.
_CLOSE_S = 5.0

# Requests of a fleet are alike: their parts are rendered once. Each may be 8 KiB long.
_MAX_PARTS = 512

_quote = msgspec.json.encode

# An exchange that is over, its client (an exchange may be that of several), the bytes that were
# sent, and the seconds it took.
Note = tuple[Exchange, str, int, float]


class Renderer:
    """Renders lines in one format. The time's text is made once a second."""

    def __init__(self, log_format: LogFormat, fields: dict[str, str]) -> None:
        last = render_fields(log_format, fields).encode()
        self._format = log_format
        if log_format is LogFormat.TEXT:
            self._what, self._how, self._who = _text_what, _text_how, _text_who
            self._name = b" request_id=%b"
            self._before, self._after = b"%b%b status=%d", b"%b%b%b\n"
            self._numbers = b" bytes_sent=%d duration_s=%f"
        else:
            self._what, self._how, self._who = _json_what, _json_how, _json_who
            self._name = b',"request_id":"%b"'
            self._before, self._after = b'%b%b,"status":%d', b"%b%b%b}\n"
            self._numbers = b',"bytes_sent":%d,"duration_s":%f'
        self._last = last
        self._second = -1
        self._head = b""

    def render(self, notes: Iterable[Note], now: float) -> bytes:
        """Render lines that say `now` (unix seconds), each with its line feed."""
        if int(now) != self._second:
            self._second = int(now)
            self._head = self._render_head(format_time(now))
        # A repeated answer has one exchange, and so one form for each client.
        forms: dict[tuple[Exchange, str], bytes] = {}
        lines = []
        for exchange, remote, sent_bytes, duration_s in notes:
            form = forms.get((exchange, remote))
            if form is None:
                form = forms[exchange, remote] = self._render_form(exchange, remote)
            lines.append(form % (sent_bytes, duration_s))
        return b"".join(lines)

    def _render_form(self, exchange: Exchange, remote: str) -> bytes:
        """Render all of a line but its two numbers that differ each time."""
        before = self._before % (
            self._head,
            self._what(exchange.method, exchange.target),
            exchange.status,
        )
        who = self._who(remote, exchange.header(b"user-agent") or b"", exchange.cause)
        if exchange.request_id:
            who = self._name % exchange.request_id.encode() + who
        how = self._how(exchange.cache_status, exchange.upstream, exchange.digest)
        after = self._after % (how, who, self._last)
        return before.replace(b"%", b"%%") + self._numbers + after.replace(b"%", b"%%")

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
    return _quote(leave_query_out(target).decode("latin-1"))


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
    # The engine's digests are a subclass of str, which msgspec refuses.
    values = (_quote(cache_status), _quote(upstream), _quote(str(digest)))
    return b',"cache_status":%b,"upstream":%b,"digest":%b' % values


@lru_cache(_MAX_PARTS)
def _json_who(remote: str, agent: bytes, cause: str) -> bytes:
    values = (_quote(remote), _quote(agent.decode("latin-1")), _quote(cause))
    return b',"remote":%b,"user_agent":%b,"cause":%b' % values


def make_renderer(log: LogSettings) -> Renderer | None:
    """Make the renderer as configured; None where no lines are wanted."""
    return Renderer(log.formatter, log.fields) if log.is_access_log_enabled else None


class AccessLog:
    """An observer of exchanges that writes a line of each to a file descriptor.

    `now` gives unix seconds. Made on a running loop; `aclose` it.
    """

    def __init__(self, fd: int, renderer: Renderer | None, now: Callable[[], float] = time) -> None:
        """`renderer`: None notes nothing, until `adopt` brings one."""
        self._fd = fd
        self._renderer = renderer
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._batch: list[Note] = []
        self._handed_bytes = 0  # moved by the loop only
        self._written_bytes = 0  # moved by the thread only
        self.dropped_count = 0  # lines, since the start
        self._reported_count = 0  # of them
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        # A daemon, so that a reader who never reads does not keep the process.
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    async def adopt(self, settings: ServerSettings) -> None:
        """Render lines otherwise from now on, or none."""
        self._hand_over()
        self._renderer = make_renderer(settings.log)

    def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
        """Note an exchange."""
        if self._renderer is None:
            return
        batch = self._batch
        batch.append((exchange, exchange.remote, sent_bytes, duration_s))
        if self._timer is None:
            self._timer = self._loop.call_later(_BATCH_S, self._hand_over)
        elif len(batch) >= _BATCH_LINES:
            self._hand_over()

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
        batch, self._batch = self._batch, []
        has_room = self._handed_bytes - self._written_bytes <= MAX_QUEUED_BYTES
        if not has_room:
            self.dropped_count += len(batch)
        elif batch and self._renderer is not None:
            lines = self._renderer.render(batch, self._now())
            self._queue.put(lines)
            self._handed_bytes += len(lines)
        unreported_count = self.dropped_count - self._reported_count
        if unreported_count and has_room:
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
