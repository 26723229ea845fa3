"""Manifests by tag and cold: what upstream's answer makes of the response."""

from pathlib import Path

import pytest

from engine.lookup import CacheStatus, ManifestLookup
from engine.names import Tag
from tests.fakes.cache import digest_of
from tests.fakes.registry_api import APP, NOW, Desk

pytestmark = pytest.mark.anyio

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = digest_of(MANIFEST)
TYPE = "application/vnd.docker.distribution.manifest.v2+json"
TAG = "/v2/acme/app/manifests/1.0"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def give(
    desk: Desk,
    status: CacheStatus,
    *,
    is_stored: bool = True,
    warning: str = "",
    upstream_status: int | None = None,
) -> None:
    """Let `1.0` be that manifest."""
    content = desk.cache.add(APP, MANIFEST, TYPE, stored_at=NOW - 60)
    desk.cache.manifests[APP, Tag("1.0")] = ManifestLookup(
        status,
        DIGEST,
        len(MANIFEST),
        TYPE,
        content if is_stored else None,
        warning,
        upstream_status,
    )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("status", "upstream_status", "told", "age"),
    [
        (CacheStatus.HIT, None, "moorage; hit", "60"),
        (CacheStatus.MISS, 200, "moorage; fwd=uri-miss; fwd-status=200; stored", "60"),
        (
            CacheStatus.REVALIDATED,
            200,
            "moorage; fwd=stale; fwd-status=200; detail=revalidated",
            "0",
        ),
    ],
)
async def test_a_tag_has_all_that_clients_look_at(
    desk: Desk, method: str, status: CacheStatus, upstream_status: int | None, told: str, age: str
) -> None:
    give(desk, status, upstream_status=upstream_status)
    answer = await desk.ask(TAG, method)
    assert answer.status == 200
    assert answer.body == (MANIFEST if method == "GET" else b"")
    assert answer.headers == {
        "content-type": TYPE,
        "content-length": str(len(MANIFEST)),
        "docker-content-digest": DIGEST,
        "etag": f'"{DIGEST}"',
        "cache-status": told,
        "age": age,
    }
    assert desk.cache.calls == [f"{method.lower()}_manifest"]


async def test_a_stale_tag_says_why(desk: Desk) -> None:
    give(desk, CacheStatus.STALE, warning="stale 3 h: docker.io answered 429", upstream_status=429)
    answer = await desk.ask(f"{TAG}?ns=docker.io")
    assert (answer.status, answer.body) == (200, MANIFEST)
    assert answer.headers["warning"] == '299 - "stale 3 h: docker.io answered 429"'
    assert answer.headers["cache-status"] == (
        "moorage; fwd=stale; fwd-status=429; detail=served-stale"
    )
    assert answer.headers["oci-namespace"] == "docker.io"
    assert answer.headers["age"] == "60"


async def test_head_of_what_is_not_stored_has_the_same_head(desk: Desk) -> None:
    give(desk, CacheStatus.MISS, is_stored=False, upstream_status=200)
    answer = await desk.ask(TAG, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers == {
        "content-type": TYPE,
        "content-length": str(len(MANIFEST)),
        "docker-content-digest": DIGEST,
        "etag": f'"{DIGEST}"',
        "cache-status": "moorage; fwd=uri-miss; fwd-status=200",
    }


@pytest.mark.parametrize(("method", "is_stored"), [("GET", True), ("HEAD", True), ("HEAD", False)])
async def test_a_tag_that_has_not_moved_is_304(desk: Desk, method: str, is_stored: bool) -> None:
    give(desk, CacheStatus.REVALIDATED, is_stored=is_stored)
    answer = await desk.ask(TAG, method, if_none_match=f'"{DIGEST}"')
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{DIGEST}"'
    other = await desk.ask(TAG, method, if_none_match='"sha256:moved"')
    assert other.status == 200


def test_a_tag_is_never_answered_without_asking(desk: Desk) -> None:
    give(desk, CacheStatus.HIT)
    assert not desk.api.respond_now(desk.exchange(TAG))


async def test_a_cold_digest_is_got(desk: Desk) -> None:
    content = desk.cache.add(APP, MANIFEST, TYPE, stored_at=NOW)
    desk.cache.contents.clear()
    desk.cache.manifests[APP, DIGEST] = ManifestLookup(
        CacheStatus.COLLAPSED, DIGEST, len(MANIFEST), TYPE, content
    )
    answer = await desk.ask(f"/v2/acme/app/manifests/{DIGEST}")
    assert (answer.status, answer.body) == (200, MANIFEST)
    assert answer.headers["cache-status"] == "moorage; fwd=uri-miss; collapsed"


async def test_an_unknown_tag_is_404(desk: Desk) -> None:
    answer = await desk.ask("/v2/acme/app/manifests/none")
    assert answer.status == 404
    assert b"MANIFEST_UNKNOWN" in answer.body
