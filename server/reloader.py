"""Reads the configuration again when it is asked to, and has everybody adopt what has changed.

Invariant: one reload at a time; a configuration that is wrong changes nothing. Who adopts settings
does so completely or raises, and is asked again at the next reload whatever came of this one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from engine.pem import PemError
from server.config_tree import ConfigError
from server.reload import plan_reload
from server.settings import ServerSettings

logger = logging.getLogger(__name__)

Reread: TypeAlias = Callable[[], ServerSettings]
Adopt: TypeAlias = Callable[[ServerSettings], Awaitable[None]]


class Reloader:
    """Holds the settings in force. `reread` blocks, and raises `ConfigError`.

    `under_way` is entered for each reload, so that a service manager can be told.
    """

    def __init__(
        self,
        settings: ServerSettings,
        reread: Reread,
        under_way: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.settings = settings
        self._reread = reread
        self._under_way = under_way
        self._adopters: list[Adopt] = []
        self._is_asked = asyncio.Event()

    def add(self, adopt: Adopt) -> None:
        """Have `adopt` called with the settings of each reload. It may raise `PemError`."""
        self._adopters.append(adopt)

    def ask(self) -> None:
        """Have a reload soon; from any callback on the loop."""
        self._is_asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            with self._under_way():
                try:
                    await self.reload_once()
                except Exception:
                    # Who asks the next time must be heard.
                    logger.exception("reload failed, some former values may stay")

    async def reload_once(self) -> None:
        """Read the configuration and put it in force, as far as that is possible."""
        try:
            new = await asyncio.to_thread(self._reread)
        except ConfigError as exc:
            for problem in exc.problems:
                logger.error("configuration unusable, the former one stays: %s", problem)
            return
        plan = plan_reload(self.settings, new)
        for warning in new.warnings:
            if warning not in self.settings.warnings:
                logger.warning("%s", warning)
        await self._adopt(plan.settings)
        self.settings = plan.settings
        logger.info("configuration read again changes=%s", _list(plan.changes))
        if plan.needs_restart:
            logger.warning(
                "former values stay until a restart keys=%s action=restart the server",
                _list(plan.needs_restart),
            )

    async def _adopt(self, settings: ServerSettings) -> None:
        for adopt in self._adopters:
            try:
                await adopt(settings)
            except PemError as exc:
                logger.error("not adopted, former values stay: %s", exc)


def _list(keys: Sequence[str]) -> str:
    return ",".join(keys) or "none"
