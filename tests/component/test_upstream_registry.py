"""What the cache gets from an upstream that behaves, over real sockets."""

import json
from collections.abc import AsyncIterator

import pytest

from engine.errors import BlobUnknown, ManifestUnknown, RepositoryUnknown
from engine.names import Digest, Tag
from engine.upstream.api import Upstream
from engine.upstream.kinds import Kind, RateLimit
from engine.upstream.registry import Registry
from tests.fakes.upstream import Fault, ScriptedUpstream
from tests.fakes.upstream_client import BUSYBOX, UNKNOWN, open_registry, read_all, soon
from tests.fakes.upstream_content import IMAGE_INDEX, MANIFEST, make_bytes

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
async def registry(upstream: ScriptedUpstream) -> AsyncIterator[Registry]:
    async with open_registry(upstream.settings()) as made:
        yield made


async def test_head_of_a_tag_says_digest_size_and_type(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    image = upstream.content.add_image(BUSYBOX, "1.35")
    head = await registry.head_manifest(BUSYBOX, Tag("1.35"), deadline=soon())
    assert (head.digest, head.size_bytes, head.media_type) == (
        image.manifest,
        len(image.body),
        MANIFEST,
    )


async def test_a_manifest_comes_byte_for_byte(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    body = b'{ "schemaVersion":2,\n\t"odd" :  "spacing"}\n'
    digest = upstream.content.add_manifest(BUSYBOX, body, "application/x.unheard-of", tag="odd")
    manifest = await registry.get_manifest(BUSYBOX, Tag("odd"), deadline=soon())
    assert (manifest.body, manifest.media_type) == (body, "application/x.unheard-of")
    assert manifest.digest == digest


async def test_a_blob_streams_whole_and_says_its_size(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    data = make_bytes(3_000_000)
    digest = upstream.content.add_blob(BUSYBOX, data)
    stream = await registry.open_blob(BUSYBOX, digest, deadline=soon())
    assert (stream.start, stream.size_bytes) == (0, len(data))
    assert await read_all(stream) == data
    assert upstream.seen(kind="blob")[0].header("range") is None


async def test_head_of_a_blob_gives_its_size_and_downloads_nothing(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    digest = upstream.content.add_blob(BUSYBOX, b"x" * 1234)
    assert await registry.head_blob(BUSYBOX, digest, deadline=soon()) == 1234
    assert upstream.count(method="GET") == 0


async def test_requests_bear_our_headers_and_no_others(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    upstream.content.add_image(BUSYBOX, "1.35")
    await registry.get_manifest(BUSYBOX, Tag("1.35"), deadline=soon())
    headers = upstream.requests[0].headers
    assert set(headers) == {"host", "accept", "accept-encoding", "user-agent"}
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("moorage/")
    assert MANIFEST in headers["accept"]
    assert IMAGE_INDEX in headers["accept"]
    assert headers["accept"].endswith("*/*")


async def test_each_404_is_named_after_what_was_asked(registry: Registry) -> None:
    with pytest.raises(ManifestUnknown, match="404"):
        await registry.get_manifest(BUSYBOX, Tag("none"), deadline=soon())
    with pytest.raises(ManifestUnknown):
        await registry.head_manifest(BUSYBOX, UNKNOWN, deadline=soon())
    with pytest.raises(BlobUnknown):
        await registry.open_blob(BUSYBOX, UNKNOWN, deadline=soon())
    with pytest.raises(BlobUnknown):
        await registry.head_blob(BUSYBOX, UNKNOWN, deadline=soon())
    with pytest.raises(RepositoryUnknown):
        await registry.list_tags(BUSYBOX, deadline=soon())


async def test_tags_of_all_pages_come_in_lexical_order(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    for number in range(7):
        upstream.content.add_image(BUSYBOX, f"v{number}", config=b"%d" % number)
    upstream.page_size = 2
    tags = await registry.list_tags(BUSYBOX, deadline=soon())
    assert tags.tags == tuple(f"v{number}" for number in range(7))
    assert upstream.count(kind="tags") == 4


async def test_a_repository_without_tags_has_an_empty_list(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    upstream.content.add_blob(BUSYBOX, b"a blob, so that there is a repository")
    assert (await registry.list_tags(BUSYBOX, deadline=soon())).tags == ()


def add_referrers(upstream: ScriptedUpstream, count: int) -> Digest:
    subject = upstream.content.add_image(BUSYBOX, "signed")
    for number in range(count):
        body = {"subject": {"digest": subject.manifest}, "artifactType": "application/x.sbom"}
        body["n"] = {"n": str(number)}
        upstream.content.add_manifest(BUSYBOX, json.dumps(body).encode())
    return subject.manifest


async def test_referrers_of_all_pages_come_as_one_image_index(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    subject = add_referrers(upstream, 5)
    upstream.page_size = 2
    merged = await registry.get_referrers(BUSYBOX, subject, deadline=soon())
    assert merged is not None
    index = json.loads(merged)
    assert (index["mediaType"], len(index["manifests"])) == (IMAGE_INDEX, 5)
    assert len({found["digest"] for found in index["manifests"]}) == 5


async def test_an_upstream_that_does_not_know_referrers_gives_none(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    subject = add_referrers(upstream, 1)
    upstream.has_referrers = False
    assert await registry.get_referrers(BUSYBOX, subject, deadline=soon()) is None


async def test_a_303_to_a_404_means_that_referrers_are_not_known(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    subject = add_referrers(upstream, 1)
    upstream.fail(Fault(status=303, redirect_to="/elsewhere"), kind="referrers")
    assert await registry.get_referrers(BUSYBOX, subject, deadline=soon()) is None


async def test_a_base_path_is_kept(upstream: ScriptedUpstream) -> None:
    upstream.path = "/artifactory/docker"
    upstream.content.add_image(BUSYBOX, "1.35")
    async with open_registry(upstream.settings()) as registry:
        await registry.head_manifest(BUSYBOX, Tag("1.35"), deadline=soon())
    assert upstream.requests[0].path.startswith("/artifactory/docker/v2/library/busybox/")


async def test_counters_tell_billable_gets_and_the_rate_limit(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    upstream.content.add_image(BUSYBOX, "1.35")
    upstream.answer_headers = {
        "ratelimit-limit": "100;w=21600",
        "ratelimit-remaining": "20;w=21600",
    }
    await registry.head_manifest(BUSYBOX, Tag("1.35"), deadline=soon())
    await registry.get_manifest(BUSYBOX, Tag("1.35"), deadline=soon())
    assert registry.rate_limit == RateLimit(limit=100, remaining=20, window_s=21600)
    assert registry.counts.billable_manifest_gets == 1
    assert registry.counts.requests == {(Kind.HEAD, "200"): 1, (Kind.MANIFEST, "200"): 1}


async def test_nothing_is_contacted_before_something_is_asked(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    implementation: Upstream = registry  # the Protocol holds
    assert implementation.settings.url == upstream.url
    assert upstream.registry.connections_count == 0
