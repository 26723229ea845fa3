"""Content stays in the repositories that upstream serves it to."""

from pathlib import Path

import pytest

from engine.errors import (
    BlobUnknown,
    ManifestUnknown,
    StorageError,
    UpstreamDenied,
    UpstreamUnavailable,
)
from engine.index import Index
from engine.lookup import CacheStatus
from engine.names import Location, Repository
from tests.fakes.caches import BUSYBOX, mirror_of, read_blob
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

OTHER = Location("docker.io", Repository("acme/other"))
SECRET = make_bytes(200_000, seed=1)
LOGIN = {"username": "robot", "password": "secret"}


async def test_a_stored_blob_is_not_served_to_a_repository_that_lacks_it(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        upstream.content.add_blob(OTHER.repository, b"unrelated")
        await read_blob(cache, BUSYBOX, digest)
        with pytest.raises(BlobUnknown):
            await read_blob(cache, OTHER, digest)


async def test_a_running_fill_is_not_shared_with_a_repository_that_lacks_it(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        upstream.content.add_blob(OTHER.repository, b"unrelated")
        gate = Gate()
        upstream.fail(Fault(stall_at=150_000, gate=gate), method="GET", kind="blob")
        lookup = await cache.get_blob(BUSYBOX, digest)
        with pytest.raises(BlobUnknown):
            await cache.get_blob(OTHER, digest)
        assert lookup.reader is not None
        lookup.reader.close()
        gate.open()


async def test_a_blob_held_by_two_repositories_costs_one_get_and_one_head(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        upstream.content.add_blob(OTHER.repository, SECRET)
        await read_blob(cache, BUSYBOX, digest)
        for _ in range(3):
            assert await read_blob(cache, OTHER, digest) == SECRET
        methods = [seen.method for seen in upstream.seen(kind="blob")]
        assert sorted(methods) == ["GET", "HEAD"]


async def test_a_public_blob_that_a_manifest_names_needs_no_asking(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        first = upstream.content.add_image(BUSYBOX.repository, "1", (SECRET,))
        upstream.content.add_image(OTHER.repository, "1", (SECRET,))
        await read_blob(cache, BUSYBOX, first.layers[0])
        await cache.get_manifest(OTHER, first.manifest)
        assert await read_blob(cache, OTHER, first.layers[0]) == SECRET
        assert [seen.method for seen in upstream.seen(kind="blob")] == ["GET"]


async def test_a_blob_fetched_with_credentials_is_asked_for_as_each_repository(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        mirror_of(tmp_path, upstream, **LOGIN) as cache,
    ):
        first = upstream.content.add_image(BUSYBOX.repository, "1", (SECRET,))
        upstream.content.add_image(OTHER.repository, "1", (SECRET,))
        await read_blob(cache, BUSYBOX, first.layers[0])
        await cache.get_manifest(OTHER, first.manifest)
        for _ in range(3):
            assert await read_blob(cache, OTHER, first.layers[0]) == SECRET
        methods = [seen.method for seen in upstream.seen(kind="blob")]
        assert sorted(methods) == ["GET", "HEAD"]


async def test_a_manifest_that_names_anothers_blob_does_not_open_it(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        mirror_of(tmp_path, upstream, **LOGIN) as cache,
    ):
        secret = upstream.content.add_image(BUSYBOX.repository, "1", (SECRET,))
        forged = upstream.content.add_manifest(OTHER.repository, secret.body)
        await read_blob(cache, BUSYBOX, secret.layers[0])
        await cache.get_manifest(OTHER, forged)
        with pytest.raises(BlobUnknown):
            await read_blob(cache, OTHER, secret.layers[0])


async def test_a_stored_manifest_is_not_served_to_a_repository_that_lacks_it(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(BUSYBOX.repository, "1")
        upstream.content.holding(OTHER.repository)
        await cache.get_manifest(BUSYBOX, image.manifest)
        with pytest.raises(ManifestUnknown):
            await cache.get_manifest(OTHER, image.manifest)
        upstream.content.add_image(OTHER.repository, "1")


async def test_a_denied_repository_gets_the_reason_and_nothing_else(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        await read_blob(cache, BUSYBOX, digest)
        fault = Fault(status=403, code="DENIED", message="not for you")
        upstream.fail(fault, repository=OTHER.repository, times=None)
        with pytest.raises(UpstreamDenied):
            await read_blob(cache, OTHER, digest)


async def test_while_upstream_cannot_be_asked_it_is_unavailable_and_not_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.blobs.HEAD_DEADLINE_S", 0.5)
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        await read_blob(cache, BUSYBOX, digest)
        await upstream.stop()
        with pytest.raises(UpstreamUnavailable):
            await read_blob(cache, OTHER, digest)


async def test_a_blob_is_not_served_as_a_manifest(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        await read_blob(cache, BUSYBOX, digest)
        with pytest.raises(ManifestUnknown):
            await cache.get_manifest(BUSYBOX, digest)


async def test_a_manifest_may_be_read_as_a_blob(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(BUSYBOX.repository, "1")
        await cache.get_manifest(BUSYBOX, image.manifest)
        lookup = await cache.get_blob(BUSYBOX, image.manifest)
        assert lookup.status is CacheStatus.HIT


async def test_a_link_that_cannot_be_written_costs_a_head_and_not_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("index: the disk is full")

    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        digest = upstream.content.add_blob(BUSYBOX.repository, SECRET)
        upstream.content.add_blob(OTHER.repository, SECRET)
        await read_blob(cache, BUSYBOX, digest)
        monkeypatch.setattr(Index, "hold", fail)
        assert await read_blob(cache, OTHER, digest) == SECRET
        assert upstream.count(method="HEAD", kind="blob") == 1
