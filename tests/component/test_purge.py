"""Purging and pinning on a real cache: what goes, what others keep, and what clients see."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.acts import open_acts
from engine.cache import Cache
from engine.errors import DirectoryInUse
from engine.hot import Kind
from engine.layout import Layout
from engine.names import Digest, Location, Repository, Tag
from engine.settings import UpstreamSettings
from engine.subject import DigestSubject, RepositorySubject, TagSubject, UpstreamSubject
from tests.fakes.caches import BUSYBOX, open_cache, read_blob, read_lookup
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.upstream_content import Image

pytestmark = pytest.mark.anyio

OTHER = Location("docker.io", Repository("library/other"))
GHCR = Location("ghcr.io", Repository("org/app"))
BASE = b"a base layer that images share"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


def settings_of(upstream: ScriptedUpstream) -> list[UpstreamSettings]:
    return [upstream.settings("docker.io"), upstream.settings("ghcr.io")]


async def pull(
    cache: Cache, upstream: ScriptedUpstream, location: Location, tag: str, own: bytes
) -> Image:
    """Add an image of the base layer and one of its own, and pull it."""
    image = upstream.content.add_image(
        location.repository, tag, (BASE, own), config=b'{"of": "%b"}' % own
    )
    await cache.get_manifest(location, Tag(tag))
    for digest in (image.config, *image.layers):
        await pull_blob(cache, location, digest)
    return image


async def pull_blob(cache: Cache, location: Location, digest: Digest) -> None:
    """Pull a blob and see it committed."""
    while (lookup := await cache.get_blob(location, digest)).content is None:
        await read_lookup(cache, lookup)
        await asyncio.sleep(0)


def stored(path: Path) -> set[str]:
    return {file.name for file in (path / "blobs").rglob("*") if file.is_file()}


def names(*digests: Digest) -> set[str]:
    return {digest.hex for digest in digests}


async def test_a_tag_takes_along_what_only_it_needs(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        old = await pull(cache, upstream, BUSYBOX, "1.34", b"old")
        new = await pull(cache, upstream, BUSYBOX, "1.35", b"new")
        base, own = old.layers
        plan = await cache.acts.purge(TagSubject(BUSYBOX, Tag("1.34")))
        assert plan.tags == ("docker.io/library/busybox:1.34",)
        assert {blob.digest for blob in plan.blobs} == {old.manifest, old.config, own}
        assert stored(tmp_path) == names(new.manifest, new.config, *new.layers)
        assert cache.find(Kind.BLOB, BUSYBOX, own) is None
        assert cache.find(Kind.BLOB, BUSYBOX, base) is not None


async def test_a_tag_whose_manifest_has_another_tag_goes_alone(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        await pull(cache, upstream, BUSYBOX, "latest", b"own")
        before = stored(tmp_path)
        plan = await cache.acts.purge(TagSubject(BUSYBOX, Tag("latest")))
        assert (plan.tags, plan.blobs) == (("docker.io/library/busybox:latest",), ())
        assert stored(tmp_path) == before


async def test_a_tag_of_an_image_index_takes_its_images_along(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        image = upstream.content.add_image(BUSYBOX.repository, None, (b"arm layer",))
        upstream.content.add_image_index(BUSYBOX.repository, "multi", [image.body])
        await cache.get_manifest(BUSYBOX, Tag("multi"))
        await cache.get_manifest(BUSYBOX, image.manifest)
        for digest in (image.config, *image.layers):
            await pull_blob(cache, BUSYBOX, digest)
        await cache.acts.purge(TagSubject(BUSYBOX, Tag("multi")))
        assert stored(tmp_path) == set()


async def test_a_tag_leaves_what_another_repository_links(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        other = await pull(cache, upstream, OTHER, "1", b"other")
        plan = await cache.acts.purge(TagSubject(BUSYBOX, Tag("1.35")))
        assert plan.kept_count == 1
        assert stored(tmp_path) == names(other.manifest, other.config, *other.layers)


async def test_a_repository_goes_with_tags_and_links_but_leaves_what_is_shared(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        image = await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        other = await pull(cache, upstream, OTHER, "1", b"other")
        plan = await cache.acts.purge(RepositorySubject(BUSYBOX))
        assert plan.tags == ("docker.io/library/busybox:1.35",)
        assert plan.kept_count == 1
        assert stored(tmp_path) == names(other.manifest, other.config, *other.layers)
        assert await cache.list_repositories() == [OTHER]
        # The base layer is still here, but not known to be this repository's any more.
        assert cache.find(Kind.BLOB, BUSYBOX, image.layers[0]) is None
        asked = upstream.count(method="HEAD", kind="blob")
        assert await read_blob(cache, BUSYBOX, image.layers[0]) == BASE
        assert upstream.count(method="HEAD", kind="blob") == asked + 1


async def test_an_upstream_goes_whole_and_leaves_what_another_links(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        image = await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        await pull(cache, upstream, GHCR, "1", b"app")
        await pull(cache, upstream, GHCR, "2", b"app 2")
        plan = await cache.acts.purge(UpstreamSubject("ghcr.io"))
        assert plan.tags == ("ghcr.io/org/app:1", "ghcr.io/org/app:2")
        assert stored(tmp_path) == names(image.manifest, image.config, *image.layers)
        assert await cache.list_repositories() == [BUSYBOX]


async def test_a_digest_goes_wherever_it_is_and_is_fetched_anew(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        image = await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        await pull(cache, upstream, OTHER, "1", b"other")
        base = image.layers[0]
        fetched = upstream.count(method="GET", kind="blob")
        plan = await cache.acts.purge(DigestSubject(base))
        assert [blob.digest for blob in plan.blobs] == [base]
        assert base.hex not in stored(tmp_path)
        assert await read_blob(cache, BUSYBOX, base) == BASE
        assert upstream.count(method="GET", kind="blob") == fetched + 1


async def test_a_digest_of_one_repository_stays_while_another_links_it(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        image = await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        await pull(cache, upstream, OTHER, "1", b"other")
        base, own = image.layers
        assert (await cache.acts.purge(DigestSubject(base, BUSYBOX))).blobs == ()
        assert cache.find(Kind.BLOB, BUSYBOX, base) is None
        await cache.acts.purge(DigestSubject(own, BUSYBOX))
        assert {base.hex, own.hex} & stored(tmp_path) == {base.hex}


@pytest.mark.parametrize(
    "subject",
    [
        TagSubject(BUSYBOX, Tag("1.35")),
        RepositorySubject(BUSYBOX),
        UpstreamSubject("docker.io"),
    ],
    ids=str,
)
async def test_a_dry_run_says_what_would_go_and_touches_nothing(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    subject: TagSubject | RepositorySubject | UpstreamSubject,
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        before = stored(tmp_path)
        said = await cache.acts.purge(subject, is_dry_run=True)
        assert stored(tmp_path) == before
        assert await cache.acts.purge(subject) == said
        assert {blob.digest.hex for blob in said.blobs} == before
        assert said.freed_bytes == sum(blob.size_bytes for blob in said.blobs) > 0
        assert (await cache.acts.purge(subject)).is_empty


async def test_a_purge_frees_its_bytes_in_the_budget(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        assert cache.space.blob_bytes > 0
        await cache.acts.purge(UpstreamSubject("docker.io"))
        assert cache.space.blob_bytes == 0


async def test_a_pin_holds_across_a_restart_until_it_is_taken_back(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    glob = "docker.io/library/busybox:1.*"
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        assert await cache.acts.pin(glob)
        assert not await cache.acts.pin(glob)
    async with open_acts(tmp_path) as acts:
        assert [pin.glob for pin in await acts.list_pins()] == [glob]
        assert await acts.unpin(glob)
        assert not await acts.unpin(glob)
        assert await acts.list_pins() == []


async def test_without_a_server_acts_need_the_lock(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with open_cache(tmp_path, *settings_of(upstream)) as cache:
        await pull(cache, upstream, BUSYBOX, "1.35", b"own")
        with pytest.raises(DirectoryInUse):
            async with open_acts(tmp_path):
                pass
    async with open_acts(tmp_path) as acts:
        await acts.purge(UpstreamSubject("docker.io"))
    assert stored(tmp_path) == set()
    assert Layout(tmp_path).index_path.exists()
