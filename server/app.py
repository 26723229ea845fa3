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
from server import logs
from server.access import open_gate
from server.access_gate import Access, AccessGate
from server.access_log import AccessLog, Renderer
from server.access_rules import Rules
from server.accounts_file import AccountsError
from server.api import Api
from server.control import open_control
from server.endpoint import Endpoint, Observer
from server.exchange import Handler
from server.forwarded import ForwardedGate
from server.health import Health
from server.limits import Limits, derive_max_connections, raise_open_files
from server.listening import BACKLOG, ListenError, OpenListener, open_listeners
from server.networks import Networks
from server.protocol import Connection
from server.proxy_connection import ProxiedConnection, ProxyFaults
from server.routes import Router
from server.settings import HTTPSettings, Listener, ServerSettings
from server.tally import Tally

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_CONFIGURATION = 2

_DEBUG_CONNECTIONS = 64

OpenHandler = Callable[[ServerSettings], AbstractAsyncContextManager[Handler]]
Connect = Callable[[Endpoint], asyncio.BaseProtocol]


@asynccontextmanager
async def open_api(settings: ServerSettings) -> AsyncIterator[Handler]:
    """Open the cache and the API over it. Raises what `Cache.open` and `open_gate` raise."""
    cache = await Cache.open(settings.engine)
    try:
        access = None if settings.access is None else Access(Rules(settings.access))
        api = Tally(Api(cache, settings, access=access))
        path = Layout(settings.engine.data_directory).control_path
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_control(cache, api.answers, path))
            yield await _open_gates(stack, api, settings, access)
    finally:
        await cache.aclose()


async def _open_gates(
    stack: AsyncExitStack, api: Handler, settings: ServerSettings, access: Access | None
) -> Handler:
    """Put before the API what is configured, the last gate first: whence, who, and what."""
    handler = api
    if access is not None:
        router = Router(settings.engine.upstreams, settings.http.prefix)
        handler = AccessGate(handler, access, router)
    if settings.auth is not None:
        handler = await stack.enter_async_context(open_gate(handler, settings.auth))
    if settings.http.trustedproxies:
        handler = ForwardedGate(handler, Networks(settings.http.trustedproxies))
    return handler


def run(settings: ServerSettings, open_handler: OpenHandler = open_api) -> int:
    """Serve until a signal ends it; return the exit code.

    SIGTERM and SIGINT drain, a second one cuts. 2 = it could not start; why is on stderr.
    """
    logs.set_up(settings.log)
    limits = Limits(max_connections=derive_max_connections(raise_open_files()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Server(settings, limits, open_handler).run())


class StartError(Exception):
    """The settings ask for what this server cannot do."""


class Server:
    """One run of the server."""

    def __init__(self, settings: ServerSettings, limits: Limits, open_handler: OpenHandler) -> None:
        self._settings = settings
        self._limits = limits
        self._open_handler = open_handler
        self._health = Health()
        self._stop = asyncio.Event()
        self._endpoint: Endpoint | None = None

    async def run(self) -> int:
        """Start, serve, drain; return the exit code."""
        self._handle_signals()
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except (AccountsError, ListenError, StartError, StorageError) as exc:
                logger.error("start failed: %s", exc)
                return EXIT_CONFIGURATION
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
        if settings.http.tls is not None:
            raise StartError("http.tls: this server speaks plain HTTP; put TLS in front of it")
        observers = self._open_observers(stack)
        debug = Endpoint(
            self._health, limits=replace(self._limits, max_connections=_DEBUG_CONNECTIONS)
        )
        stack.push_async_callback(debug.drain, 0)
        await _listen(stack, debug, Connection, settings.http.debug_listeners, "debug port open")
        connect = _expect_proxies(Connection, settings.http)
        handler = await stack.enter_async_context(self._open_handler(settings))
        self._endpoint = Endpoint(
            handler, headers=settings.http.headers, limits=self._limits, observers=observers
        )
        stack.push_async_callback(self._drain, self._endpoint)
        self._log_routing()
        await _listen(stack, self._endpoint, connect, settings.http.listeners, "listening")
        self._health.is_ready = True

    def _open_observers(self, stack: AsyncExitStack) -> tuple[Observer, ...]:
        log = self._settings.log
        # Without a standard output its number may be any file's, the index's included.
        if not log.is_access_log_enabled or sys.stdout is None:
            return ()
        access_log = AccessLog(sys.stdout.fileno(), Renderer(log.formatter, log.fields))
        stack.push_async_callback(access_log.aclose)
        return (access_log,)

    async def _drain(self, endpoint: Endpoint) -> None:
        timeout_s = self._settings.http.draintimeout_s
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
        loop.add_signal_handler(signal.SIGHUP, self._note_hangup)

    def _end(self, number: signal.Signals) -> None:
        logger.info("signal name=%s", number.name)
        if self._stop.is_set() and self._endpoint is not None:
            self._endpoint.cut_all()
        self._stop.set()

    def _note_hangup(self) -> None:
        logger.info("signal name=SIGHUP: the configuration is read at start only")


def _expect_proxies(connect: Callable[[Endpoint], Connection], http: HTTPSettings) -> Connect:
    """Have a connection begin with a header of the PROXY protocol, if that is configured."""
    if not http.has_proxy_header:
        return connect
    trusted, faults = Networks(http.trustedproxies), ProxyFaults()
    return lambda endpoint: ProxiedConnection(endpoint, connect, trusted, faults)


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
    def make() -> asyncio.BaseProtocol:
        return connect(endpoint)

    loop, sock = endpoint.loop, opened.sock
    if opened.address.path:
        return await loop.create_unix_server(make, sock=sock, backlog=BACKLOG)
    return await loop.create_server(make, sock=sock, backlog=BACKLOG)


def _mask(url: str) -> str:
    """Leave out a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
