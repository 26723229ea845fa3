"""Manifests through the cache: tags by upstream's word, digests for ever, stale over nothing."""

import asyncio
import json
from pathlib import Path

import pytest

from engine.errors import (
    DigestMismatch,
    ManifestUnknown,
    UpstreamDenied,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.lookup import CacheStatus
from engine.names import Digest, Tag
from tests.fakes.caches import BUSYBOX, mirror_of, read_content, read_fill
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_content import MANIFEST

pytestmark = pytest.mark.anyio

REPOSITORY = BUSYBOX.repository
TAG = Tag("1")


async def test_a_tag_is_asked_by_head_and_fetched_by_digest_once(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, TAG)
        cold = await cache.get_manifest(BUSYBOX, TAG)
        warm = await cache.get_manifest(BUSYBOX, TAG)
        assert [cold.status, warm.status] == [CacheStatus.MISS, CacheStatus.REVALIDATED]
        assert warm.content is not None
        assert read_content(cache, warm.content) == image.body
        assert (warm.digest, warm.media_type) == (image.manifest, MANIFEST)
        asked = [(seen.method, seen.reference) for seen in upstream.seen(kind="manifest")]
        assert asked == [("HEAD", TAG), ("GET", image.manifest), ("HEAD", TAG)]


async def test_many_who_ask_at_once_cost_one_head_and_one_get(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_image(REPOSITORY, TAG)
        found = await asyncio.gather(*(cache.get_manifest(BUSYBOX, TAG) for _ in range(50)))
        statuses = [lookup.status for lookup in found]
        assert statuses.count(CacheStatus.MISS) == 1
        assert statuses.count(CacheStatus.COLLAPSED) == 49
        assert [seen.method for seen in upstream.seen(kind="manifest")] == ["HEAD", "GET"]


async def test_a_moved_tag_is_seen_at_once(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        old = upstream.content.add_image(REPOSITORY, TAG, (b"old",))
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == old.manifest
        new = upstream.content.add_image(REPOSITORY, TAG, (b"new",))
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == new.manifest


async def test_a_young_tag_is_served_unasked_within_tagttl(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        mirror_of(tmp_path, upstream, tagttl_s=3600.0) as cache,
    ):
        upstream.content.add_image(REPOSITORY, TAG)
        await cache.get_manifest(BUSYBOX, TAG)
        asked = upstream.count()
        assert (await cache.get_manifest(BUSYBOX, TAG)).status is CacheStatus.HIT
        assert upstream.count() == asked


async def test_an_outage_is_logged_once_and_not_by_every_pull(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_image(REPOSITORY, TAG)
        await cache.get_manifest(BUSYBOX, TAG)
        upstream.fail(Fault(status=403), times=None)
        for _ in range(5):
            assert (await cache.get_manifest(BUSYBOX, TAG)).status is CacheStatus.STALE
        for number in range(3):
            reader = (await cache.get_blob(BUSYBOX, Digest(f"sha256:{number:064}"))).reader
            assert reader is not None
            with pytest.raises(UpstreamDenied):
                await read_fill(reader)
    events = [message.split(" location")[0] for message in caplog.messages]
    assert events.count("stale served") == 1
    assert events.count("fill failed") == 1


async def test_a_slow_answer_does_not_turn_a_young_tag_back(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        mirror_of(tmp_path, upstream, tagttl_s=3600.0) as cache,
    ):
        old = upstream.content.add_image(REPOSITORY, TAG, (b"old",))
        upstream.fail(Fault(status=405), method="HEAD")
        gate = Gate()
        answer = Fault(hold=gate, body=old.body, headers={"Docker-Content-Digest": old.manifest})
        upstream.fail(answer, method="GET")
        slow = asyncio.create_task(cache.get_manifest(BUSYBOX, TAG))
        await gate.wait_reached()
        new = upstream.content.add_image(REPOSITORY, TAG, (b"new",))
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == new.manifest
        gate.open()
        assert (await slow).digest == old.manifest
        young = await cache.get_manifest(BUSYBOX, TAG)
        assert (young.status, young.digest) == (CacheStatus.HIT, new.manifest)


async def test_a_digest_is_never_revalidated(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, TAG)
        await cache.get_manifest(BUSYBOX, image.manifest)
        await upstream.stop()
        assert (await cache.get_manifest(BUSYBOX, image.manifest)).status is CacheStatus.HIT


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=429, headers={"Retry-After": "30"}), "429"),
        (Fault(status=401), "401"),
        (Fault(status=403), "403"),
        (Fault(status=500), "500"),
        (Fault(status=503), "503"),
        (Fault(drop=True), ""),
    ],
    ids=["429", "401", "403", "500", "503", "reset"],
)
async def test_what_is_stored_is_served_stale_while_upstream_fails(
    tmp_path: Path, fault: Fault, says: str
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, TAG)
        await cache.get_manifest(BUSYBOX, TAG)
        upstream.fail(fault, times=None)
        lookup = await cache.get_manifest(BUSYBOX, TAG)
        assert lookup.status is CacheStatus.STALE
        assert lookup.digest == image.manifest
        assert says in lookup.warning


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=429, headers={"Retry-After": "30"}), UpstreamRateLimited),
        (Fault(status=403), UpstreamDenied),
        (Fault(status=503), UpstreamUnavailable),
    ],
    ids=["429", "403", "503"],
)
async def test_an_upstream_fault_without_a_copy_keeps_its_name(
    tmp_path: Path, fault: Fault, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.manifests.DEADLINE_S", 0.5)
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_image(REPOSITORY, TAG)
        upstream.fail(fault, times=None)
        with pytest.raises(error):
            await cache.get_manifest(BUSYBOX, TAG)


async def test_a_tag_that_upstream_dropped_is_dropped_here(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_image(REPOSITORY, TAG)
        await cache.get_manifest(BUSYBOX, TAG)
        del upstream.content.holding(REPOSITORY).tags[TAG]
        with pytest.raises(ManifestUnknown):
            await cache.get_manifest(BUSYBOX, TAG)
        upstream.fail(Fault(status=429), times=None)
        with pytest.raises(UpstreamRateLimited):
            await cache.get_manifest(BUSYBOX, TAG)


async def test_a_tag_unknown_now_may_appear_the_next_moment(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.holding(REPOSITORY)
        with pytest.raises(ManifestUnknown):
            await cache.get_manifest(BUSYBOX, TAG)
        image = upstream.content.add_image(REPOSITORY, TAG)
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == image.manifest


async def test_an_unknown_digest_is_remembered_for_a_moment(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.holding(REPOSITORY)
        missing = Digest("sha256:" + "0" * 64)
        for _ in range(3):
            with pytest.raises(ManifestUnknown):
                await cache.get_manifest(BUSYBOX, missing)
        assert upstream.count(kind="manifest") == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(status=405), Fault(headers={"Docker-Content-Digest": None}), Fault(status=403)],
    ids=["405", "no digest", "403"],
)
async def test_a_head_that_cannot_tell_is_followed_by_a_get_of_the_tag(
    tmp_path: Path, fault: Fault
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, TAG)
        upstream.fail(fault, method="HEAD", times=None)
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == image.manifest
        assert upstream.count(method="GET", reference=TAG) == 1


async def test_a_corrupt_manifest_is_fetched_anew_once_and_never_shown(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, TAG)
        upstream.fail(Fault(corrupt_at=3), method="GET", kind="manifest")
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == image.manifest
        other = upstream.content.add_image(REPOSITORY, "2", (b"other",))
        upstream.fail(Fault(corrupt_at=3), method="GET", kind="manifest", times=None)
        with pytest.raises(DigestMismatch):
            await cache.get_manifest(BUSYBOX, other.manifest)


async def test_the_head_of_a_cold_tag_downloads_nothing(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY, TAG)
        head = await cache.head_manifest(BUSYBOX, TAG)
        assert head.content is None
        assert (head.digest, head.size_bytes) == (image.manifest, len(image.body))
        assert upstream.count(method="GET") == 0


async def test_a_child_of_an_image_index_is_described_without_asking(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        image = upstream.content.add_image(REPOSITORY)
        index = upstream.content.add_image_index(REPOSITORY, TAG, [image.body])
        assert (await cache.get_manifest(BUSYBOX, TAG)).digest == index
        asked = upstream.count()
        head = await cache.head_manifest(BUSYBOX, image.manifest)
        assert (head.size_bytes, head.media_type) == (len(image.body), MANIFEST)
        assert upstream.count() == asked


@pytest.mark.parametrize(
    "body",
    [b"not json", b"[1]", b"{}", b'{"layers": 5}', b'{"x": "' + b"y" * 5_000_000 + b'"}'],
    ids=["text", "list", "empty", "wrong types", "5 MB"],
)
async def test_any_manifest_is_served_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        kind = "application/vnd.example.unheard-of"
        digest = upstream.content.add_manifest(REPOSITORY, body, kind, TAG)
        for reference in (TAG, digest):
            lookup = await cache.get_manifest(BUSYBOX, reference)
            assert lookup.media_type == kind
            assert lookup.content is not None
            assert read_content(cache, lookup.content) == body


async def test_a_manifest_without_content_type_gets_the_one_it_states(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_image(REPOSITORY, TAG)
        upstream.fail(Fault(headers={"Content-Type": None}), kind="manifest", times=None)
        assert (await cache.get_manifest(BUSYBOX, TAG)).media_type == MANIFEST


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        image = upstream.content.add_image(REPOSITORY, TAG)
        async with mirror_of(tmp_path, upstream) as cache:
            await cache.get_manifest(BUSYBOX, TAG)
        await upstream.stop()
        async with mirror_of(tmp_path, upstream) as cache:
            by_digest = await cache.get_manifest(BUSYBOX, image.manifest)
            assert (by_digest.status, by_digest.media_type) == (CacheStatus.HIT, MANIFEST)
            by_tag = await cache.get_manifest(BUSYBOX, TAG)
            assert (by_tag.status, by_tag.digest) == (CacheStatus.STALE, image.manifest)


async def test_tags_are_upstreams_and_those_known_here_while_it_is_down(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.content.add_image(REPOSITORY, "1")
        upstream.content.add_image(REPOSITORY, "2")
        await cache.get_manifest(BUSYBOX, TAG)
        assert (await cache.list_tags(BUSYBOX)).tags == ("1", "2")
        upstream.fail(Fault(status=429), times=None)
        page = await cache.list_tags(BUSYBOX)
        assert page.tags == ("1",)
        assert "429" in page.warning


@pytest.mark.parametrize("has_referrers", [True, False], ids=["api", "fallback tag"])
async def test_referrers_come_from_upstream_and_are_never_not_found(
    tmp_path: Path, has_referrers: bool
) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.has_referrers = has_referrers
        image = upstream.content.add_image(REPOSITORY, TAG)
        empty = await cache.get_referrers(BUSYBOX, image.manifest, None)
        assert json.loads(empty.body)["manifests"] == []
        _sign(upstream, image.manifest)
        page = await cache.get_referrers(BUSYBOX, image.manifest, None)
        assert len(json.loads(page.body)["manifests"]) == 1
        other = await cache.get_referrers(BUSYBOX, image.manifest, "another/type")
        assert json.loads(other.body)["manifests"] == []
        assert other.is_filtered


async def test_referrers_that_are_nested_without_end_are_upstreams_fault(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, mirror_of(tmp_path, upstream) as cache:
        upstream.has_referrers = False
        image = upstream.content.add_image(REPOSITORY, TAG)
        body = b'{"manifests":[{"annotations":' + b"[" * 100_000
        upstream.content.holding(REPOSITORY).manifests["deep"] = (MANIFEST, body)
        upstream.content.holding(REPOSITORY).tags[image.manifest.replace(":", "-")] = "deep"
        with pytest.raises(UpstreamProtocolError, match="no image index"):
            await cache.get_referrers(BUSYBOX, image.manifest, None)


def _sign(upstream: ScriptedUpstream, subject: Digest) -> None:
    """Add a referrer of `subject`, both ways that registries know."""
    body = {"subject": {"digest": subject}, "artifactType": "a/signature"}
    upstream.content.add_manifest(REPOSITORY, json.dumps(body).encode())
    named = [{"digest": "sha256:" + "1" * 64, "artifactType": "a/signature", "size": 1}]
    fallback = json.dumps({"manifests": named}).encode()
    upstream.content.add_manifest(REPOSITORY, fallback, MANIFEST, subject.replace(":", "-"))
