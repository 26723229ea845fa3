"""What operators may see and do, through whichever door: the control socket or the debug port.

Invariant: there is one implementation of each command, and it needs no door. Before the cache is
open, and after it was closed, everything is refused with `NotOpen`.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from engine.cache import Cache
from engine.errors import CacheError
from engine.explanation import Explanation, explain
from engine.settings import EngineSettings
from engine.subject import DigestSubject, TagSubject
from server import overview
from server.control_acts import carry_out
from server.control_messages import Act, Drain, Draining, Reply, Running, Warm, Warming
from server.facts import Facts
from server.history import INTERVAL_S, History
from server.instruments import Instruments
from server.survey import Survey
from server.warming import Warmer

logger = logging.getLogger(__name__)


class NotOpen(CacheError):
    """The server is starting, or ending."""

    def __init__(self) -> None:
        super().__init__("the server has not opened its cache yet, or has closed it: try again")


class Operator:
    """Carries out what operators ask. Made by `open_operator`."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._survey = Survey()
        self._history = History()
        self._explaining = asyncio.Lock()
        self._warmer: Warmer | None = None

    async def act(self, act: Act) -> Reply:
        """Purge, pin, unpin, quarantine. Raises `CacheError`."""
        logger.info("operator act=%r", act)
        return await carry_out(self._cache.acts, act)

    def drain(self, command: Drain) -> Draining:
        """Have the server finish what is under way, and end."""
        logger.info("operator act=%r", command)
        reply = Draining(
            os.getpid(), self._connection_count, self._instruments.settings.http.draintimeout_s
        )
        self._instruments.stop.set()
        return reply

    async def warm(self, command: Warm) -> AsyncGenerator[Warming, None]:
        """Warm an image; see `Warmer.warm`. Close it."""
        logger.info("operator act=%r", command)
        cache = self._cache
        if self._warmer is None:
            self._warmer = Warmer(cache, self._instruments.settings.engine.upstreams)
        async with aclosing(self._warmer.warm(command)) as stages:
            async for stage in stages:
                yield stage

    async def explain(self, subject: TagSubject | DigestSubject) -> Explanation:
        """Tell all about a tag or digest, one at a time: it takes a thread, for seconds perhaps.

        Raises `Unknown` and other `CacheError`s.
        """
        if self._instruments.cache is None:
            raise NotOpen
        async with self._explaining:
            return await asyncio.to_thread(asyncio.run, explain(self.settings, subject))

    def tell_running(self) -> Running:
        """The least that there is to tell."""
        space, counted = self._cache.space, self._instruments.counters.snapshot()
        return Running(
            os.getpid(),
            counted.started_at,
            counted.count_by_status(),
            space.stored_bytes,
            space.reserved_bytes,
            space.capacity_bytes,
        )

    async def tell_facts(self) -> Facts:
        """All that there is to see. Raises `NotOpen`."""
        is_open = self._instruments.cache is not None
        survey = await self._survey.get(self.settings) if is_open else None
        cache, settings = self._cache, self._instruments.settings
        counted, now, view = self._instruments.counters.snapshot(), time.time(), cache.look()
        scrub, reconcile = overview.describe_upkeep(view, settings.engine)
        return Facts(
            overview.describe_server(settings, self._standing(), counted.started_at, now),
            overview.describe_traffic(counted),
            self._history.list_until(counted, now),
            overview.describe_space(cache.space, settings.engine),
            [overview.describe_fill(fill) for fill in view.fills[: overview.MAX_FILLS]],
            overview.describe_upstreams(view.upstreams, settings.engine.upstreams),
            overview.describe_pulled(counted),
            survey,
            overview.describe_errors(counted),
            scrub,
            reconcile,
        )

    async def keep_history(self) -> None:
        """Take a sample of the traffic now and then, until cancelled."""
        while True:
            self._history.note(self._instruments.counters.snapshot(), time.time())
            await asyncio.sleep(INTERVAL_S)

    async def aclose(self) -> None:
        """Wait for readings under way."""
        await self._survey.aclose()

    @property
    def settings(self) -> EngineSettings:
        """Those in force: a reload may change them."""
        return self._instruments.settings.engine

    @property
    def _cache(self) -> Cache:
        cache = self._instruments.cache
        if cache is None:
            raise NotOpen
        return cache

    @property
    def _connection_count(self) -> int:
        endpoint = self._instruments.endpoint
        return len(endpoint.connections) if endpoint is not None else 0

    def _standing(self) -> overview.Standing:
        instruments = self._instruments
        if instruments.stop.is_set():
            state = "draining"
        else:
            state = "ready" if instruments.endpoint is not None else "starting"
        return overview.Standing(state, self._connection_count, instruments.clients_at)


@asynccontextmanager
async def open_operator(instruments: Instruments) -> AsyncIterator[Operator]:
    """Make an operator, whose history is kept while the block lasts."""
    operator = Operator(instruments)
    keeper = asyncio.create_task(operator.keep_history(), name="history")
    try:
        yield operator
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})
        await operator.aclose()
