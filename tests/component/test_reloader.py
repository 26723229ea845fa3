"""Reloads go on, whatever one of them comes to."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.settings import EngineSettings, UpstreamSettings
from server.reloader import Reloader
from server.settings import ServerSettings

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
