"""Reloads go on, whatever one of them comes to, and what must not wait does not."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.settings import EngineSettings, UpstreamSettings
from server.instruments import Instruments
from server.opening import open_api
from server.reloader import Reloader
from server.settings import AccessSettings, ServerSettings
from tests.fakes.counted import make_counters
from tests.fakes.exchange import FakeExchange

pytestmark = pytest.mark.anyio

HUB = UpstreamSettings("docker.io", "https://hub.example", ("docker.io",))
SETTINGS = ServerSettings(EngineSettings(Path("/srv/data"), (HUB,)))


async def test_one_that_fails_unforeseen_is_logged_and_the_next_one_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [ValueError("unheard of")]
    ended: asyncio.Queue[None] = asyncio.Queue()
    adopted: asyncio.Queue[ServerSettings] = asyncio.Queue()

    def reread() -> ServerSettings:
        if faults:
            raise faults.pop()
        return SETTINGS

    @contextmanager
    def under_way() -> Iterator[None]:
        try:
            yield
        finally:
            ended.put_nowait(None)

    reloader = Reloader(SETTINGS, reread, under_way)
    reloader.add(adopted.put)
    task = asyncio.create_task(reloader.run())
    reloader.ask()
    await ended.get()
    assert "reload failed" in caplog.text
    assert "unheard of" in caplog.text
    reloader.ask()
    assert await adopted.get() == SETTINGS
    task.cancel()
    await asyncio.wait({task})


async def test_rules_do_not_wait_for_a_round_of_eviction(tmp_path: Path) -> None:
    opened = ServerSettings(
        EngineSettings(tmp_path, (HUB,)), access=AccessSettings(is_allowed_by_default=True)
    )
    reloader = Reloader(opened, lambda: replace(opened, access=AccessSettings()))
    instruments = Instruments(opened, make_counters(b"/v2/"))
    async with open_api(instruments, reloader) as handler:

        def is_denied() -> bool:
            return handler.respond_now(FakeExchange(b"/v2/acme/app/manifests/1"))

        is_over = is_denied()
        assert not is_over
        assert instruments.cache is not None
        async with instruments.cache.evictor._turn, asyncio.timeout(10):
            task = asyncio.create_task(reloader.reload_once())
            while not is_over:
                await asyncio.sleep(0)
                is_over = is_denied()
        await task
