"""What is foretold of eviction is what eviction then does."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.eviction import IN_USE_S
from engine.index_readonly import ReadOnlyConnections
from engine.layout import Layout
from engine.names import Digest
from engine.outlook import Outlook
from engine.policies import POLICIES
from engine.settings import EngineSettings
from tests.fakes.memory_upstream import NO_SCRUB, MemoryUpstream
from tests.fakes.small_caches import KIB, NO_MINFREE, pull_bytes, small_cache, stored_digests

pytestmark = pytest.mark.anyio

COUNT = 12


def settings_of(path: Path, maxsize_bytes: int, policy: str) -> EngineSettings:
    eviction = replace(
        NO_MINFREE, maxsize_bytes=maxsize_bytes, maxsize_fraction=None, policy=policy
    )
    return EngineSettings(path, (MemoryUpstream().settings,), eviction, NO_SCRUB)


async def foretell(path: Path, maxsize_bytes: int, policy: str, now: float) -> list[Digest]:
    """The victims that go now, in a process that only reads."""
    settings = settings_of(path, maxsize_bytes, policy)
    async with ReadOnlyConnections(Layout(path).index_path) as connections:
        outlook = Outlook(settings, connections)
        return [
            each.victim.digest async for each in outlook.iter_victims(now) if each.needed_bytes == 0
        ]


async def fill(path: Path, upstream: MemoryUpstream) -> list[Digest]:
    """Store blobs, of which every third one is used again a while later."""
    async with small_cache(path, upstream, 100 * KIB * 100) as cache:
        digests = [await pull_bytes(cache, upstream, seed) for seed in range(COUNT)]
        await cache._store.index.record_uses({digest: time.time() + 700 for digest in digests[::3]})
    return digests


@pytest.mark.parametrize("policy", POLICIES)
async def test_those_go_that_were_foretold(tmp_path: Path, policy: str) -> None:
    upstream = MemoryUpstream()
    await fill(tmp_path, upstream)
    now = time.time() + 700 + IN_USE_S + 1
    before = stored_digests(tmp_path)
    foretold = await foretell(tmp_path, 700 * KIB, policy, now)
    async with small_cache(tmp_path, upstream, 700 * KIB, policy=policy) as cache:
        await cache.evictor.evict_once(now)
    gone = before - stored_digests(tmp_path)
    assert set(foretold) == gone
    assert len(foretold) == len(gone) > 3


@pytest.mark.parametrize("policy", POLICIES)
async def test_all_are_foretold_once_and_pinned_ones_never(tmp_path: Path, policy: str) -> None:
    upstream = MemoryUpstream()
    digests = await fill(tmp_path, upstream)
    settings = settings_of(tmp_path, 100_000 * KIB, policy)
    async with ReadOnlyConnections(Layout(tmp_path).index_path) as connections:
        expected = [each async for each in Outlook(settings, connections).iter_victims()]
    assert sorted(each.victim.digest for each in expected) == sorted(digests)
    needed = [each.needed_bytes for each in expected]
    assert needed == sorted(needed)
    assert needed[0] > 0


async def test_what_expired_comes_first_and_needs_no_more_to_be_stored(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    digests = await fill(tmp_path, upstream)
    now = time.time() + upstream.settings.ttl_s + 60
    settings = settings_of(tmp_path, 100_000 * KIB, "lru")
    async with ReadOnlyConnections(Layout(tmp_path).index_path) as connections:
        expected = [each async for each in Outlook(settings, connections).iter_victims(now)]
    expired = [each for each in expected if each.victim.reason.value == "expired"]
    assert expired == expected[: len(expired)]
    assert {each.victim.digest for each in expired} == set(digests) - set(digests[::3])
    assert {each.needed_bytes for each in expired} == {0}
