"""The cache against a model: whatever is read, evicted, killed, lost and damaged, in any order.

What must hold: bytes that arrive are right; the budget holds; what is pinned stays; index and files
agree once the mirror has settled; and nothing of all this needs a hand.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine import trust
from engine.cache import Cache
from engine.descriptor import find_named
from engine.errors import UpstreamUnavailable
from engine.names import Digest, Location, Repository, Tag
from engine.settings import EngineSettings, EvictionSettings
from engine.trust import Rotted
from tests.fakes.caches import QUICK, read_blob, read_content
from tests.fakes.damage import blob_path, flip_bit, iter_blob_files, query
from tests.fakes.memory_upstream import NO_SCRUB, SETTINGS, MemoryUpstream, settle_fills
from tests.fakes.upstream_content import Image, make_bytes

T = TypeVar("T")

LOCATIONS = [Location("docker.io", Repository(name)) for name in ("library/a", "library/b")]
# About twice what fits.
SIZES = [0, 10, 4_096, 70_000, 150_000, 300_000]
BUDGET_BYTES = 512 * 1024
PINNED = f"{LOCATIONS[0]}:pinned"
WEEKS_S = 30 * 24 * 3600.0
READS = st.tuples(st.sampled_from(LOCATIONS), st.integers(0, 11))


def damage_by(act: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        if path.exists():
            act(path)

    return damage


DAMAGES = {
    "removed": damage_by(Path.unlink),
    "empty": damage_by(lambda path: os.truncate(path, 0)),
    "cut": damage_by(lambda path: os.truncate(path, path.stat().st_size // 2)),
    "garbage": damage_by(lambda path: path.write_bytes(make_bytes(30_000))),
}


class CacheMachine(RuleBasedStateMachine):
    """One data directory over many runs of the mirror."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.data = Path(self.root.name, "0")
        self.runner = asyncio.Runner()
        self.upstream = MemoryUpstream()
        self.cache: Cache  # once `fill_upstream` has opened it
        self.images: list[Image] = []
        self.blobs: list[tuple[Digest, bytes]] = []
        self.rotten: set[Digest] = set()  # damaged on disk, and nobody has noticed yet
        self.pinned: set[Digest] = set()  # stored, and not to be evicted
        self.generation = 0
        # Small enough that the larger blobs are compared while they are read.
        self.whole_bytes = trust.MAX_WHOLE_BYTES
        trust.MAX_WHOLE_BYTES = 50_000

    @initialize()
    def fill_upstream(self) -> None:
        for seed, location in enumerate(LOCATIONS):
            layers = tuple(make_bytes(size, seed=seed * 100 + size) for size in SIZES)
            holding = self.upstream.content
            self.images.append(holding.add_image(location.repository, "1", layers))
            for other in LOCATIONS:
                self.blobs += [(holding.add_blob(other.repository, data), data) for data in layers]
        self.blobs = list(dict.fromkeys(self.blobs))
        pinned = self.upstream.content.add_image(
            LOCATIONS[0].repository, "pinned", (b"a pinned layer", make_bytes(20_000, seed=999))
        )
        self.images.append(pinned)
        self.open()

    def run(self, coroutine: Coroutine[None, None, T]) -> T:
        return self.runner.run(coroutine)

    def open(self) -> None:
        self.cache = self.run(self._open())

    async def _open(self) -> Cache:
        eviction = EvictionSettings(
            maxsize_bytes=BUDGET_BYTES,
            minfree_fraction=None,
            minfree_bytes=0,
            interval_s=3600.0,
            pins=(PINNED,),
        )
        engine = EngineSettings(self.data, (SETTINGS,), eviction=eviction, verify=NO_SCRUB)
        cache = await Cache.open(engine, connect=self.upstream.connect, patience=QUICK)
        await cache._upkeep._snapshots.inspect_once()
        await cache._upkeep._reconciler.run_once()
        return cache

    def close(self) -> None:
        self.run(self.cache.aclose())

    def teardown(self) -> None:
        try:
            if self.images:
                self.close()
                self.check_agreement()
        finally:
            self.runner.close()
            self.root.cleanup()
            trust.MAX_WHOLE_BYTES = self.whole_bytes

    # What clients do

    async def read(self, location: Location, number: int) -> None:
        digest, data = self.blobs[number % len(self.blobs)]
        try:
            body = await read_blob(self.cache, location, digest)
        except Rotted:
            assert digest in self.rotten, f"{digest} was not damaged"
            assert len(data) > trust.MAX_WHOLE_BYTES
        except UpstreamUnavailable:
            assert self.upstream.is_down
            return
        else:
            assert body == data
        self.rotten.discard(digest)

    @rule(reads=st.lists(READS, min_size=1, max_size=6))
    def read_blobs(self, reads: list[tuple[Location, int]]) -> None:
        self.run(self._read_all(reads))

    async def _read_all(self, reads: list[tuple[Location, int]]) -> None:
        # Each once: two that meet the same rot would confuse the model.
        unique = {number % len(self.blobs): location for location, number in reads}
        await asyncio.gather(*(self.read(location, number) for number, location in unique.items()))
        await settle_fills(self.cache)

    @rule(number=st.integers(0, 1), by_tag=st.booleans())
    def read_manifest(self, number: int, by_tag: bool) -> None:
        image, location = self.images[number], LOCATIONS[number]
        reference = Tag("1") if by_tag else image.manifest
        try:
            lookup = self.run(self.cache.get_manifest(location, reference))
        except UpstreamUnavailable:
            assert self.upstream.is_down
            return
        assert lookup.content is not None
        assert read_content(self.cache, lookup.content) == image.body
        self.rotten.discard(image.manifest)

    @rule()
    @precondition(lambda self: not self.upstream.is_down)
    def pull_pinned(self) -> None:
        self.run(self._pull_pinned())

    async def _pull_pinned(self) -> None:
        image = self.images[2]
        lookup = await self.cache.get_manifest(LOCATIONS[0], Tag("pinned"))
        assert lookup.content is not None
        assert read_content(self.cache, lookup.content) == image.body
        for named in find_named(image.body):
            await read_blob(self.cache, LOCATIONS[0], named.digest)
            self.rotten.discard(named.digest)
        self.rotten.discard(image.manifest)
        await settle_fills(self.cache)
        wanted = {image.manifest, *(named.digest for named in find_named(image.body))}
        self.pinned = {digest for digest in wanted if blob_path(self.data, digest).exists()}

    @rule(location=st.sampled_from(LOCATIONS), number=st.integers(0, 11))
    def head(self, location: Location, number: int) -> None:
        digest, data = self.blobs[number % len(self.blobs)]
        try:
            head = self.run(self.cache.head_blob(location, digest))
        except UpstreamUnavailable:
            assert self.upstream.is_down
            return
        assert head.size_bytes == len(data)

    @rule(is_down=st.booleans())
    def upstream_comes_or_goes(self, is_down: bool) -> None:
        self.upstream.is_down = is_down

    # What the mirror does

    @rule()
    def evict(self) -> None:
        self.run(self.cache.evictor.evict_once())

    @rule(now=st.just(WEEKS_S))
    def expire(self, now: float) -> None:
        self.run(self.cache.evictor.evict_once(2**31 + now))

    @rule()
    def reconcile(self) -> None:
        self.run(self.cache._upkeep._reconciler.run_once())

    @rule()
    def take_snapshot(self) -> None:
        self.run(self.cache._upkeep._snapshots.take_once())

    # What happens to it

    @rule()
    def restart(self) -> None:
        self.close()
        self.check_agreement()
        self.open()

    @rule(reads=st.lists(READS, max_size=6), turns=st.integers(0, 60), evicts=st.booleans())
    def crash(self, reads: list[tuple[Location, int]], turns: int, evicts: bool) -> None:
        """Kill it in the middle of all that: what is on the disk at that moment is all there is."""
        self.run(self._crash(reads, turns, evicts))
        self.data = Path(self.root.name, str(self.generation))
        self.open()

    async def _crash(self, reads: list[tuple[Location, int]], turns: int, evicts: bool) -> None:
        cache, rotten = self.cache, set(self.rotten)
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(self.read(location, number)) for location, number in reads
        ]
        if evicts:
            tasks.append(asyncio.create_task(cache.evictor.evict_once()))
        for _ in range(turns):
            await asyncio.sleep(0)
        self.generation += 1
        copy_as_it_is(self.data, Path(self.root.name, str(self.generation)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cache.aclose()
        shutil.rmtree(self.data)
        # Some of it may have been noticed, some not.
        self.rotten = rotten
        self.pinned.clear()

    @rule(
        index=st.sampled_from([None, *DAMAGES]),
        snapshot=st.sampled_from([None, *DAMAGES]),
    )
    def lose_index(self, index: str | None, snapshot: str | None) -> None:
        self.close()
        if index is not None:
            DAMAGES[index](self.data / "index.sqlite3")
            self.pinned.clear()  # the tag may be lost, and is asked for at the next pull
        if snapshot is not None:
            DAMAGES[snapshot](self.data / "index.snapshot")
        self.open()

    @rule(chosen=st.integers(0), flips=st.booleans())
    def lose_blob(self, chosen: int, flips: bool) -> None:
        self.close()
        files = sorted(iter_blob_files(self.data))
        if files:
            path = files[chosen % len(files)]
            digest = Digest(f"sha256:{path.name}")
            if not flips or path.stat().st_size == 0:
                path.unlink()
            else:
                flip_bit(path, chosen % path.stat().st_size)
                self.rotten.add(digest)
                if digest_of(path) == digest:
                    self.rotten.discard(digest)  # a bit that was flipped twice
            self.pinned.discard(digest)
            if digest == self.images[2].manifest:
                self.pinned.clear()  # nothing else says what it names
        self.open()

    # What must hold

    @invariant()
    def the_budget_holds(self) -> None:
        used = sum(
            path.lstat().st_blocks * 512
            for name in ("blobs", "partial", "quarantine")
            for path in (self.data / name).rglob("*")
            if path.is_file()
        )
        assert used <= BUDGET_BYTES

    @invariant()
    def what_is_pinned_stays(self) -> None:
        lost = {digest for digest in self.pinned if not blob_path(self.data, digest).exists()}
        assert not lost

    def check_agreement(self) -> None:
        """Once it has stopped, rows and files are the same, and bytes are right."""
        files = {f"sha256:{path.name}": path for path in iter_blob_files(self.data)}
        rows = query(self.data / "index.sqlite3", "SELECT digest, size_bytes FROM blob")
        assert sorted(rows) == sorted((name, path.stat().st_size) for name, path in files.items())
        for name, path in files.items():
            assert digest_of(path) == name or name in self.rotten
        assert query(self.data / "index.sqlite3", "PRAGMA integrity_check") == [("ok",)]


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def copy_as_it_is(data: Path, target: Path) -> None:
    """Copy what a killed process leaves. Its threads go on meanwhile, so files may vanish."""
    for path in [data, *sorted(data.rglob("*"))]:
        copy = target / path.relative_to(data)
        if path.is_dir():
            copy.mkdir(parents=True)
        elif not path.name.endswith("-shm"):
            try:
                shutil.copy2(path, copy)
            except FileNotFoundError:
                continue


TestCache = CacheMachine.TestCase
TestCache.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
