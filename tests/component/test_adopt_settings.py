"""Parts of a running mirror go by other settings, as a reload asks them to."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.errors import UpstreamDenied
from engine.names import Tag
from engine.settings import EngineSettings, EvictionSettings, VerifySettings
from engine.upstream.registry import Registry
from server.framing import CLOSE, HeadEnds
from server.logins import LOOK_S, Logins
from tests.fakes.accounts import Clock, CountedCheck, basic, write_accounts
from tests.fakes.authority import Authority
from tests.fakes.memory_upstream import SETTINGS, MemoryUpstream
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.upstream_client import BUSYBOX, open_registry, soon

pytestmark = pytest.mark.anyio

TAG = Tag("1.35")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        scripted.content.add_image(BUSYBOX, TAG)
        yield scripted


async def ask(registry: Registry) -> None:
    await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


@pytest.mark.parametrize("way", ["basic", "token"])
async def test_new_credentials_take_the_place_of_refused_ones(
    upstream: ScriptedUpstream, way: str
) -> None:
    demand = upstream.auth.require_basic if way == "basic" else upstream.auth.require_token
    demand(ci="new")
    old = replace(upstream.settings(), username="ci", password="old")
    async with open_registry(old) as registry:
        with pytest.raises(UpstreamDenied):
            await ask(registry)
        await registry.adopt(replace(old, password="new"))
        await ask(registry)


async def test_a_token_is_kept_unless_it_is_somebody_elses(upstream: ScriptedUpstream) -> None:
    upstream.auth.require_token(ci="old", bob="his")
    old = replace(upstream.settings(), username="ci", password="old")
    async with open_registry(old) as registry:
        await ask(registry)
        await registry.adopt(replace(old, tagttl_s=5.0))
        await ask(registry)
        assert registry.counts.token_fetches == 1
        await registry.adopt(replace(old, username="bob", password="his"))
        await ask(registry)
        assert registry.counts.token_fetches == 2


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    upstream = MemoryUpstream()
    opened = await Cache.open(
        EngineSettings(tmp_path / "data", (SETTINGS,)), connect=upstream.connect
    )
    try:
        yield opened
    finally:
        await opened.aclose()


async def test_the_cache_goes_by_another_budget(cache: Cache, tmp_path: Path) -> None:
    eviction = EvictionSettings(
        maxsize_bytes=10_000_000,
        maxsize_fraction=None,
        minfree_fraction=0.0,
        highwatermark_fraction=0.5,
        lowwatermark_fraction=0.25,
        policy="lru",
        pins=("docker.io/a:*",),
    )
    upstream = replace(SETTINGS, tagttl_s=7.0)
    await cache.adopt(EngineSettings(tmp_path / "data", (upstream,), eviction, VerifySettings(0.0)))
    await cache.evictor.evict_once()
    assert cache.space.capacity_bytes == 10_000_000
    with cache.space.want(6_000_000):
        assert cache.space.is_above_high
        assert cache.space.above_low_bytes == 3_500_000
    assert cache.evictor.settings == eviction


async def test_the_scrub_begins_where_there_was_none(cache: Cache, tmp_path: Path) -> None:
    for interval_s in (0.0, 0.001, 0.0, 3600.0):
        settings = EngineSettings(
            tmp_path / "data", (SETTINGS,), verify=VerifySettings(interval_s, rate_bytes_s=1000)
        )
        await cache.adopt(settings)


async def test_an_upstream_whose_files_are_gone_keeps_its_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    settings = EngineSettings(tmp_path / "data", (replace(SETTINGS, ca=str(authority.path)),))
    cache = await Cache.open(settings)
    try:
        authority.path.unlink()
        await cache.adopt(settings)
    finally:
        await cache.aclose()
    assert f"former settings stay upstream=docker.io cause=ca {authority.path}: no such" in (
        caplog.text
    )


async def test_headers_change_under_open_connections() -> None:
    ends = HeadEnds((("X-A", "old"),))
    before = ends.at(1.0, CLOSE)
    ends.adopt((("X-A", "new"),))
    assert b"X-A: old\r\n" in before
    assert b"X-A: new\r\n" in ends.at(1.0, CLOSE)


async def test_logins_move_to_another_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_accounts(tmp_path / "old", ci="right")
    write_accounts(tmp_path / "new", bob="his")
    clock = Clock()
    logins = Logins(tmp_path / "old", check=CountedCheck(), clock=clock)
    try:
        ci, bob = basic("ci", "right").encode(), basic("bob", "his").encode()
        assert await logins.judge(ci, "192.0.2.1")
        logins.move(tmp_path / "missing")
        assert await logins.judge(ci, "192.0.2.1")
        assert "accounts unusable, the former ones stay" in caplog.text
        logins.move(tmp_path / "new")
        assert not logins.find_user(ci)
        assert not await logins.judge(ci, "192.0.2.1")
        assert await logins.judge(bob, "192.0.2.1")
        clock.now += LOOK_S
        assert logins.find_user(bob)
    finally:
        await logins.aclose()
