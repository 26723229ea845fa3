"""Images are fetched before anybody asks, once, and what is here is not fetched again."""

import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest

from engine.cache import Cache
from engine.hot import Content
from server.control_messages import Warm, Warming
from server.warming import Warmer, summarize
from tests.fakes.caches import BUSYBOX
from tests.fakes.stocked import OTHER, Upstreams
from tests.fakes.upstream_content import CONFIG, IMAGE_INDEX, MANIFEST, descriptor, make_bytes

pytestmark = pytest.mark.anyio

T = TypeVar("T")
LAYER = make_bytes(200_000, seed=3)


class Site:
    def __init__(self, cache: Cache, upstreams: Upstreams) -> None:
        self.cache = cache
        self.hub = upstreams.by_name["docker.io"]
        self.ghcr = upstreams.by_name["ghcr.io"]
        settings = [each.settings for each in upstreams.by_name.values()]
        self.warmer = Warmer(cache, settings)

    async def warm(self, ref: str, *platforms: str, is_for_all: bool = False) -> Warming:
        """Warm, and give how it ended."""
        last = None
        command = Warm(ref, list(platforms), is_for_all)
        async with aclosing(self.warmer.warm(command)) as stages:
            async for last in stages:
                assert last.ref == ref
        assert last is not None
        assert last.state != "running"
        return last


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    upstreams = Upstreams()
    async with upstreams.cache(tmp_path) as cache:
        yield Site(cache, upstreams)


def add_image_index(site: Site) -> None:
    entries = []
    for architecture in ("amd64", "arm64"):
        image = site.hub.content.add_image(
            BUSYBOX.repository, None, (architecture.encode() * 1000, LAYER), architecture.encode()
        )
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**descriptor(MANIFEST, image.body), "platform": platform})
    body = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries})
    site.hub.content.add_manifest(BUSYBOX.repository, body.encode(), IMAGE_INDEX, "1")


@pytest.mark.parametrize("filler", ["", 20_000 * "x"], ids=["small", "large"])
async def test_no_thread_but_the_loops_touches_the_cache(
    site: Site, monkeypatch: pytest.MonkeyPatch, filler: str
) -> None:
    threads = set()

    def note(call: Callable[[Cache, Content], T]) -> Callable[[Cache, Content], T]:
        def noted(cache: Cache, content: Content) -> T:
            threads.add(threading.current_thread())
            return call(cache, content)

        return noted

    for name in ("load_body", "open_file"):
        monkeypatch.setattr(Cache, name, note(getattr(Cache, name)))
    config = descriptor(CONFIG, b"{}")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    body = json.dumps({**manifest, "annotations": {"filler": filler}}).encode()
    site.hub.content.add_blob(BUSYBOX.repository, b"{}")
    site.hub.content.add_manifest(BUSYBOX.repository, body, MANIFEST, "1")
    assert (await site.warm("library/busybox:1")).state == "done"
    assert threads == {threading.current_thread()}


async def test_a_second_warm_fetches_nothing(site: Site) -> None:
    site.hub.content.add_image(BUSYBOX.repository, "1", (LAYER, b"small"))
    first = await site.warm("library/busybox:1")
    assert (first.state, first.blob_count, first.done_count) == ("done", 3, 3)
    assert first.done_bytes == first.total_bytes == len(LAYER) + 5 + 2
    assert first.hit_bytes == 0
    assert site.hub.calls.count("open_blob") == 3
    second = await site.warm("docker.io/library/busybox:1")
    assert (second.state, second.hit_bytes) == ("done", second.total_bytes)
    assert site.hub.calls.count("open_blob") == 3


async def test_of_an_image_index_only_the_platform_that_is_wanted(site: Site) -> None:
    add_image_index(site)
    assert (await site.warm("library/busybox:1", "linux/arm64")).blob_count == 3
    assert (await site.warm("library/busybox:1", is_for_all=True)).blob_count == 5
    missing = await site.warm("library/busybox:1", "linux/s390x")
    assert missing.state == "failed"
    assert "it has linux/amd64, linux/arm64" in missing.cause


async def test_a_blob_that_is_missing_is_named_and_the_others_are_fetched(site: Site) -> None:
    image = site.hub.content.add_image(BUSYBOX.repository, "1", (LAYER, b"small"))
    del site.hub.content.holding(BUSYBOX.repository).blobs[image.layers[0]]
    ended = await site.warm("library/busybox:1")
    assert (ended.state, ended.done_count) == ("failed", 2)
    assert image.layers[0] in ended.cause


@pytest.mark.parametrize(
    ("ref", "cause"),
    [
        ("Library/Busybox", "is not a repository"),
        ("quay.io/org/app:1", "is not a repository of an upstream that is configured"),
        ("sha256:" + "0" * 64, "is not a repository with a tag or digest"),
        ("library/nothing:1", "has no 1"),
        ("library/busybox@sha256:" + "0" * 64, "has no sha256:"),
    ],
)
async def test_what_cannot_be_warmed_is_said_with_its_cause(
    site: Site, ref: str, cause: str
) -> None:
    ended = await site.warm(ref)
    assert ended.state == "failed"
    assert cause in ended.cause


async def test_what_the_cache_keeps_open_is_touched_on_the_loop_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that opened a file beside a hit's would leave one of the two open for good."""
    threads: set[int] = set()

    def watch(real: Callable[[Content], object]) -> Callable[[Content], object]:
        def watched(content: Content) -> object:
            threads.add(threading.get_ident())
            return real(content)

        return watched

    for name in ("load_body", "open_file"):
        monkeypatch.setattr(site.cache, name, watch(getattr(site.cache, name)))
    labels = {f"label-{number}": "x" * 100 for number in range(300)}
    image = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "annotations": labels})
    for body, tag in ((image, "large"), (json.dumps({"schemaVersion": 2}), "small")):
        site.hub.content.add_manifest(BUSYBOX.repository, body.encode(), MANIFEST, tag)
        assert (await site.warm(f"library/busybox:{tag}")).state == "done"
    assert threads == {threading.get_ident()}


async def test_what_names_more_than_anybody_can_mean_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.warming._MAX_PIECES", 2)
    site.hub.content.add_image(BUSYBOX.repository, "1", (LAYER, b"small"))
    ended = await site.warm("library/busybox:1")
    assert (ended.state, ended.cause) == ("failed", "it names more than 2 pieces of content")


async def test_of_many_causes_the_first_are_told() -> None:
    assert summarize([]) == ""
    assert summarize(["a", "b"]) == "a; b"
    assert summarize(["a"] * 5) == "a; a; a; a; a"
    assert summarize(["a"] * 7) == "a; a; a; a; a; and 2 more"


async def test_a_repository_alone_means_latest(site: Site) -> None:
    site.ghcr.content.add_image("org/app", "latest", (LAYER,))
    assert (await site.warm("ghcr.io/org/app")).state == "done"


async def test_no_room_is_a_failure_and_not_a_download_for_nothing(tmp_path: Path) -> None:
    upstreams = Upstreams()
    async with upstreams.cache(tmp_path, maxsize_bytes=100_000) as cache:
        site = Site(cache, upstreams)
        site.hub.content.add_image(OTHER.repository, "1", (LAYER,))
        ended = await site.warm("library/other:1")
    assert (ended.state, ended.done_count) == ("failed", 1)
    assert "no room" in ended.cause


async def test_an_upstream_that_is_down_fails_what_is_not_here(site: Site) -> None:
    site.hub.is_down = True
    ended = await site.warm("library/busybox:1")
    assert (ended.state, ended.cause) == ("failed", "connection refused")
