"""The composition root: what is made, in which order, and how it ends.

Invariant: what was opened is closed in reverse order, whatever happens: first no new connection,
then the responses under way, then the cache, then the debug port, then the access log.

The debug port comes up first, so that a long start looks alive but not ready; the main port comes
last, so that a client of a server that cannot serve yet is refused at once and goes elsewhere.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from dataclasses import replace
from urllib.parse import urlsplit

import uvloop

from engine.errors import StorageError
from engine.hands import make_pool
from engine.instance_lock import refuse_second
from engine.layout import Layout
from engine.pem import PemError
from server import logs
from server.accepting import Connect, accept_all, after_proxy_header
from server.access_log import AccessLog, make_renderer
from server.accounts_file import AccountsError
from server.allocator import keep_large_pieces
from server.api import Api
from server.background import begin
from server.control import open_control
from server.counters import Counters
from server.debug_guard import Guard
from server.debug_port import DebugPort
from server.endpoint import Endpoint, Observer
from server.exchange import Handler
from server.health import Health
from server.instruments import Instruments
from server.limits import Limits, derive_max_connections, raise_open_files
from server.listening import ListenError
from server.metrics import Metrics
from server.notify import ServiceManager
from server.opening import open_api
from server.operating import Operator, open_operator
from server.operator_api import OperatorApi
from server.protocol import Connection
from server.reloader import Reloader, Reread
from server.routes import Router
from server.settings import Listener, ServerSettings
from server.tcp_memory import open_tcp_memory

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_CONFIGURATION = 2

_DEBUG_CONNECTIONS = 64

OpenHandler = Callable[[Instruments, Reloader], AbstractAsyncContextManager[Handler]]


def run(
    settings: ServerSettings, open_handler: OpenHandler = open_api, *, reread: Reread | None = None
) -> int:
    """Serve until a signal ends it; return the exit code.

    SIGTERM and SIGINT drain, a second one cuts. SIGHUP has `reread` read the configuration again,
    and the certificates. 2 = it could not start; why is on stderr.
    """
    logs.set_up(settings.log)
    limits = Limits(max_connections=derive_max_connections(raise_open_files()))
    manager = ServiceManager.from_environment(os.environ)
    reloader = Reloader(settings, reread or (lambda: settings), manager.reloading)
    keep_large_pieces()
    with closing(manager), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_default_executor(make_pool("work"))
        return runner.run(Server(limits, open_handler, reloader, manager).run())


class Server:
    """One run of the server."""

    def __init__(
        self,
        limits: Limits,
        open_handler: OpenHandler,
        reloader: Reloader,
        manager: ServiceManager,
    ) -> None:
        self._limits = limits
        self._open_handler = open_handler
        self._reloader = reloader
        self._manager = manager
        self._settings = reloader.settings  # of the start
        self._health = Health()
        self._is_signalled = False  # to end; an operator's `drain` is no signal
        router = Router(self._settings.engine.upstreams, self._settings.http.prefix)
        self._instruments = Instruments(self._settings, Counters(router))
        reloader.add(self._adopt)

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
            self._manager.ready(self._describe())
            await self._instruments.stop.wait()
            self._health.is_ready = False
            self._manager.stopping(self._reloader.settings.http.draintimeout_s)
        logger.info("stopped")
        return EXIT_OK

    async def _start(self, stack: AsyncExitStack) -> None:
        settings, instruments = self._settings, self._instruments
        # Before the debug port: what is in the way then is the other server, not its address.
        refuse_second(Layout(settings.engine.data_directory).lock_path)
        for warning in settings.warnings:
            logger.warning("%s", warning)
        observers = self._open_observers(stack)
        operator = await stack.enter_async_context(open_operator(instruments))
        await self._open_debug_port(stack, operator)
        connect = await self._open_certificates(stack)
        begin_connection = after_proxy_header(settings.http, connect)
        handler = await stack.enter_async_context(self._open_handler(instruments, self._reloader))
        path = Layout(settings.engine.data_directory).control_path
        await stack.enter_async_context(open_control(operator, path))
        endpoint = instruments.endpoint = Endpoint(
            handler,
            headers=settings.http.headers,
            limits=self._limits,
            observers=observers,
            memory=stack.enter_context(open_tcp_memory()),
            # Whatever stands before the API has a say in each answer.
            is_alike=isinstance(handler, Api),
        )
        stack.push_async_callback(self._drain, endpoint)
        self._log_routing()
        listeners = settings.http.listeners
        addresses = await accept_all(stack, endpoint, listeners, "listening", begin_connection)
        instruments.clients_at += [self._url_of(address) for address in addresses]
        self._health.is_ready = True

    async def _open_debug_port(self, stack: AsyncExitStack, operator: Operator) -> None:
        http = self._settings.http
        guard = Guard(http.debug_token, http.debug_listeners)
        port = DebugPort(self._health, OperatorApi(operator, guard))
        path = http.prometheus_path
        debug = Endpoint(
            Metrics(path, self._instruments, port) if path else port,
            limits=replace(self._limits, max_connections=_DEBUG_CONNECTIONS),
        )
        stack.push_async_callback(debug.drain, 0)
        await accept_all(stack, debug, http.debug_listeners, "debug port open")

    def _open_observers(self, stack: AsyncExitStack) -> tuple[Observer, ...]:
        counters = self._instruments.counters
        # Without a standard output its number may be any file's, the index's included.
        if sys.stdout is None:
            return (counters,)
        access_log = AccessLog(sys.stdout.fileno(), make_renderer(self._settings.log))
        stack.push_async_callback(access_log.aclose)
        self._reloader.add(access_log.adopt)
        self._instruments.access_log = access_log
        return (counters, access_log)

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

    async def _adopt(self, settings: ServerSettings) -> None:
        logs.set_up(settings.log)
        self._instruments.settings = settings
        endpoint = self._instruments.endpoint
        if endpoint is not None:
            endpoint.adopt(settings.http.headers)

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
        endpoint = self._instruments.endpoint
        if self._is_signalled and endpoint is not None:
            endpoint.cut_all()
        self._is_signalled = True
        self._instruments.stop.set()

    def _reload(self) -> None:
        logger.info("signal name=SIGHUP")
        self._reloader.ask()

    def _describe(self) -> str:
        """Say in a line what is served, for `systemctl status`."""
        addresses = ", ".join(map(str, self._settings.http.listeners))
        names = ", ".join(upstream.namespace for upstream in self._settings.engine.upstreams)
        return f"serving {names} on {addresses}"

    def _url_of(self, address: Listener) -> str:
        scheme = "http" if self._settings.http.tls is None else "https"
        return str(address) if address.path else f"{scheme}://{address}"


def _mask(url: str) -> str:
    """Leave out a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
