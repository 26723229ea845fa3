"""The composition root: what is made, in which order, and how it ends.

Invariant: what was opened is closed in reverse order, whatever happens: first no new connection,
then the responses under way, then the cache, then the debug port, then the access log.

The debug port comes up first, so that a long start looks alive but not ready; the main port comes
last, so that a client of a server that cannot serve yet is refused at once and goes elsewhere.
"""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import uvloop

from engine.cache import Cache
from engine.errors import StorageError
from engine.layout import Layout
from engine.pem import PemError
from server import logs
from server.access import open_gate
from server.access_log import AccessLog, make_renderer
from server.accounts_file import AccountsError
from server.api import Api
from server.background import begin
from server.control import open_control
from server.endpoint import Endpoint, Observer
from server.exchange import Handler
from server.health import Health
from server.limits import Limits, derive_max_connections, raise_open_files
from server.listening import BACKLOG, ListenError, OpenListener, open_listeners
from server.protocol import Connection
from server.reloader import Reloader, Reread
from server.settings import Listener, ServerSettings
from server.tally import Tally

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_CONFIGURATION = 2

_DEBUG_CONNECTIONS = 64

OpenHandler = Callable[[ServerSettings, Reloader], AbstractAsyncContextManager[Handler]]
Connect = Callable[[Endpoint], Connection]


@asynccontextmanager
async def open_api(settings: ServerSettings, reloader: Reloader) -> AsyncIterator[Handler]:
    """Open the cache and the API over it. Raises what `Cache.open` and `open_gate` raise."""
    cache = await Cache.open(settings.engine)
    try:
        api = Tally(Api(cache, settings))
        path = Layout(settings.engine.data_directory).control_path
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_control(cache, api.answers, path))
            reloader.add(lambda settings: cache.adopt(settings.engine))
            if settings.auth is None:
                yield api
                return
            gate = await stack.enter_async_context(open_gate(api, settings.auth))
            reloader.add(gate.adopt)
            yield gate
    finally:
        await cache.aclose()


def run(
    settings: ServerSettings, open_handler: OpenHandler = open_api, *, reread: Reread | None = None
) -> int:
    """Serve until a signal ends it; return the exit code.

    SIGTERM and SIGINT drain, a second one cuts. SIGHUP has `reread` read the configuration again,
    and the certificates. 2 = it could not start; why is on stderr.
    """
    logs.set_up(settings.log)
    limits = Limits(max_connections=derive_max_connections(raise_open_files()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = Server(settings, limits, open_handler, reread or (lambda: settings))
        return runner.run(server.run())


class Server:
    """One run of the server."""

    def __init__(
        self, settings: ServerSettings, limits: Limits, open_handler: OpenHandler, reread: Reread
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._open_handler = open_handler
        self._health = Health()
        self._stop = asyncio.Event()
        self._reloader = Reloader(settings, reread)
        self._reloader.add(self._adopt)
        self._endpoint: Endpoint | None = None

    async def run(self) -> int:
        """Start, serve, drain; return the exit code."""
        self._handle_signals()
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except (AccountsError, ListenError, StorageError, PemError) as exc:
                logger.error("start failed: %s", exc)
                return EXIT_CONFIGURATION
            begin(stack, self._reloader.run(), "reloads")
            # What lives from now on dies young: the collector need not look at the rest again.
            gc.collect()
            gc.freeze()
            await self._stop.wait()
            self._health.is_ready = False
        logger.info("stopped")
        return EXIT_OK

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        for warning in settings.warnings:
            logger.warning("%s", warning)
        observers = self._open_observers(stack)
        debug = Endpoint(
            self._health, limits=replace(self._limits, max_connections=_DEBUG_CONNECTIONS)
        )
        stack.push_async_callback(debug.drain, 0)
        await _listen(stack, debug, Connection, settings.http.debug_listeners, "debug port open")
        connect = await self._open_certificates(stack)
        handler = await stack.enter_async_context(self._open_handler(settings, self._reloader))
        self._endpoint = Endpoint(
            handler, headers=settings.http.headers, limits=self._limits, observers=observers
        )
        stack.push_async_callback(self._drain, self._endpoint)
        self._log_routing()
        await _listen(stack, self._endpoint, connect, settings.http.listeners, "listening")
        self._health.is_ready = True

    def _open_observers(self, stack: AsyncExitStack) -> tuple[Observer, ...]:
        # Without a standard output its number may be any file's, the index's included.
        if sys.stdout is None:
            return ()
        access_log = AccessLog(sys.stdout.fileno(), make_renderer(self._settings.log))
        stack.push_async_callback(access_log.aclose)
        self._reloader.add(access_log.adopt)
        return (access_log,)

    async def _adopt(self, settings: ServerSettings) -> None:
        logs.set_up(settings.log)
        if self._endpoint is not None:
            self._endpoint.head_ends.adopt(settings.http.headers)

    async def _open_certificates(self, stack: AsyncExitStack) -> Connect:
        """Choose how connections are made: plain, or over TLS. Raises `PemError`."""
        tls = self._settings.http.tls
        if tls is None:
            return Connection
        # Not at the top: what reads certificates takes its time to import.
        from server.certificates import Certificates

        certificates = await asyncio.to_thread(Certificates, tls)
        begin(stack, certificates.run(), "certificates")
        self._reloader.add(certificates.adopt)
        return certificates.connect

    async def _drain(self, endpoint: Endpoint) -> None:
        timeout_s = self._reloader.settings.http.draintimeout_s
        logger.info("draining timeout_s=%g", timeout_s)
        await endpoint.drain(timeout_s)

    def _log_routing(self) -> None:
        for upstream in self._settings.engine.upstreams:
            logger.info(
                "route upstream=%s url=%s namespaces=%s",
                upstream.namespace,
                _mask(upstream.url),
                ",".join(upstream.namespaces),
            )

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _end(self, number: signal.Signals) -> None:
        logger.info("signal name=%s", number.name)
        if self._stop.is_set() and self._endpoint is not None:
            self._endpoint.cut_all()
        self._stop.set()

    def _reload(self) -> None:
        logger.info("signal name=SIGHUP")
        self._reloader.ask()


async def _listen(
    stack: AsyncExitStack,
    endpoint: Endpoint,
    connect: Connect,
    listeners: tuple[Listener, ...],
    event: str,
) -> None:
    """Accept connections for `endpoint` until the stack unwinds. Raises `ListenError`."""
    all_opened = open_listeners(listeners)
    for opened in all_opened:
        stack.callback(opened.close)
    for opened in all_opened:
        server = await _accept(opened, endpoint, connect)
        stack.callback(server.close)
        logger.info("%s addr=%s", event, opened.address)


async def _accept(opened: OpenListener, endpoint: Endpoint, connect: Connect) -> asyncio.Server:
    def make() -> Connection:
        return connect(endpoint)

    loop, sock = endpoint.loop, opened.sock
    if opened.address.path:
        return await loop.create_unix_server(make, sock=sock, backlog=BACKLOG)
    return await loop.create_server(make, sock=sock, backlog=BACKLOG)


def _mask(url: str) -> str:
    """Leave out a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
