"""Rot and lost indexes as clients see them: what arrives is right, or is cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.damage import blob_path, flip_bit, kept_in_quarantine
from tests.fakes.mirror import Site, site_of
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import Image, make_bytes
from tests.system.raw import ask

pytestmark = pytest.mark.system

REPOSITORY = "library/busy"
LARGE = make_bytes(16 * 1024 * 1024, seed=1)
SMALL = make_bytes(100_000, seed=2)


@pytest.fixture
def thread() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as upstream:
        yield upstream


@pytest.fixture
def image(thread: ThreadedUpstream) -> Image:
    return thread.upstream.content.add_image(REPOSITORY, "1", (LARGE, SMALL))


@pytest.fixture
def site(tmp_path: Path, thread: ThreadedUpstream, image: Image) -> Site:
    """A stopped mirror that holds the image."""
    site = site_of(tmp_path / "mirror", thread.upstream.url)
    with site.start() as mirror:
        assert ask(mirror.address, f"/v2/{REPOSITORY}/manifests/1").status == 200
        for digest in image.layers:
            assert ask(mirror.address, blob_target(digest)).digest == digest
        assert mirror.drain() == 0
    thread.upstream.requests.clear()
    return site


def blob_target(digest: str) -> str:
    return f"/v2/{REPOSITORY}/blobs/{digest}"


def test_the_first_hit_after_a_start_is_a_hit_like_any_other(
    site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with site.start() as mirror:
        first, second = (ask(mirror.address, blob_target(image.layers[0])) for _ in range(2))
        middle = ask(mirror.address, blob_target(image.layers[1]), {"Range": "bytes=99000-"})
    for answer in (first, second):
        assert (answer.status, answer.digest, answer.is_cut) == (200, image.layers[0], False)
        assert answer.headers["cache-status"] == "moorage; hit"
        assert int(answer.headers["age"]) >= 0
        assert answer.headers["content-length"] == str(len(LARGE))
    assert (middle.status, middle.body) == (206, SMALL[99_000:])
    assert thread.upstream.requests == []


def test_a_range_of_a_large_blob_is_served_while_it_is_compared(
    site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with site.start() as mirror:
        answer = ask(mirror.address, blob_target(image.layers[0]), {"Range": "bytes=15000000-"})
    assert (answer.status, answer.is_cut) == (206, False)
    assert answer.body == LARGE[15_000_000:]
    assert thread.upstream.requests == []


@pytest.mark.parametrize("offset", [0, len(LARGE) // 2, len(LARGE) - 1])
def test_a_damaged_large_blob_is_cut_once_and_then_whole(
    site: Site, image: Image, offset: int
) -> None:
    flip_bit(blob_path(site.data, image.layers[0]), offset)
    with site.start() as mirror:
        first = ask(mirror.address, blob_target(image.layers[0]))
        second = ask(mirror.address, blob_target(image.layers[0]))
        third = ask(mirror.address, blob_target(image.layers[0]))
        mirror.child.wait_for(f"blob damaged digest={image.layers[0]} path=")
    assert first.is_cut
    assert len(first.body) <= len(LARGE) - 64 * 1024
    for answer in (second, third):
        assert (answer.status, answer.digest, answer.is_cut) == (200, image.layers[0], False)
    assert kept_in_quarantine(site.data) == [image.layers[0].replace(":", "-")]


def test_a_damaged_small_blob_and_manifest_are_whole_at_once(site: Site, image: Image) -> None:
    flip_bit(blob_path(site.data, image.layers[1]), 50_000)
    flip_bit(blob_path(site.data, image.manifest), 10)
    with site.start() as mirror:
        blob = ask(mirror.address, blob_target(image.layers[1]))
        manifest = ask(mirror.address, f"/v2/{REPOSITORY}/manifests/{image.manifest}")
    assert (blob.status, blob.digest) == (200, image.layers[1])
    assert (manifest.status, manifest.body) == (200, image.body)


def test_a_garbage_index_costs_nothing_while_there_is_a_snapshot(
    site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    (site.data / "index.sqlite3").write_bytes(make_bytes(40_000))
    with site.start() as mirror:
        for digest in image.layers:
            assert ask(mirror.address, blob_target(digest)).digest == digest
        mirror.child.wait_for(r"index damaged path=\S+ kept=\S+index.sqlite3.damaged-\d+ ")
        mirror.child.wait_for(r"reconciled files=3 adopted=0 dropped=0 foreign=0")
    assert thread.upstream.requests == []
