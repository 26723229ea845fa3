"""What is stored leaves at once, whole or in part, with all that clients look at."""

from pathlib import Path

import pytest

from engine.hot import SMALL_BODY_BYTES
from engine.names import Digest
from tests.fakes.registry_api import APP, NOW, Desk

pytestmark = pytest.mark.anyio

SMALL = b"a small blob"
LARGE = bytes(range(256)) * (SMALL_BODY_BYTES // 128)
MANIFEST = b'{"schemaVersion": 2}  \n'
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def blob_path(digest: Digest) -> str:
    return f"/v2/acme/app/blobs/{digest}"


@pytest.mark.parametrize("data", [SMALL, LARGE, b""])
def test_a_blob_hit_has_all_that_clients_look_at(desk: Desk, data: bytes) -> None:
    content = desk.cache.add(APP, data, stored_at=NOW - 90)
    answer = desk.ask_now(blob_path(content.digest))
    assert (answer.status, answer.body, answer.is_whole) == (200, data, True)
    assert answer.headers == {
        "content-type": "application/octet-stream",
        "content-length": str(len(data)),
        "docker-content-digest": content.digest,
        "etag": f'"{content.digest}"',
        "cache-control": "max-age=31536000, immutable",
        "accept-ranges": "bytes",
        "cache-status": "moorage; hit",
        "age": "90",
    }


def test_hits_of_one_blob_age_and_keep_their_namespaces_apart(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL, stored_at=NOW - 90)
    target = blob_path(content.digest)
    for later in (0, 0.5, 1, 7):
        desk.now = NOW + later
        for path, namespace in ((target, None), (f"{target}?ns=docker.io", "docker.io")):
            headers = desk.ask_now(path).headers
            assert headers["age"] == str(int(90 + later))
            assert headers.get("oci-namespace") == namespace


def test_a_manifest_hit_is_byte_for_byte_whatever_is_accepted(desk: Desk) -> None:
    content = desk.cache.add(APP, MANIFEST, INDEX_TYPE, stored_at=NOW)
    target = f"/v2/acme/app/manifests/{content.digest}"
    for accept in ("text/html", "*/*", "application/vnd.oci.image.manifest.v1+json"):
        answer = desk.ask_now(target, accept=accept, accept_encoding="gzip, zstd")
        assert (answer.status, answer.body) == (200, MANIFEST)
        assert answer.headers == {
            "content-type": INDEX_TYPE,
            "content-length": str(len(MANIFEST)),
            "docker-content-digest": content.digest,
            "etag": f'"{content.digest}"',
            "cache-status": "moorage; hit",
            "age": "0",
        }


@pytest.mark.parametrize(("data", "media_type"), [(LARGE, ""), (MANIFEST, INDEX_TYPE)])
def test_head_has_the_head_of_get_and_no_body(desk: Desk, data: bytes, media_type: str) -> None:
    content = desk.cache.add(APP, data, media_type)
    noun = "manifests" if media_type else "blobs"
    target = f"/v2/acme/app/{noun}/{content.digest}"
    got = desk.ask_now(target)
    head = desk.ask_now(target, "HEAD")
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


def test_a_large_manifest_is_served_like_a_small_one(desk: Desk) -> None:
    content = desk.cache.add(APP, b" " * (SMALL_BODY_BYTES + 1), INDEX_TYPE)
    assert desk.ask_now(f"/v2/acme/app/manifests/{content.digest}").body == b" " * (
        SMALL_BODY_BYTES + 1
    )


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=3-6", 3, 7), ("bytes=5-", 5, None), ("bytes=-4", -4, None)],
)
def test_a_range_of_a_hit_is_that_part(
    desk: Desk, data: bytes, asked: str, start: int, end: int | None
) -> None:
    content = desk.cache.add(APP, data)
    answer = desk.ask_now(blob_path(content.digest), range=asked)
    part = data[start:end]
    first = range(len(data))[start]
    assert (answer.status, answer.body) == (206, part)
    assert answer.headers["content-length"] == str(len(part))
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(part) - 1}/{len(data)}"
    assert answer.headers["docker-content-digest"] == content.digest
    assert answer.headers["cache-status"] == "moorage; hit"


def test_a_range_outside_a_hit_is_416_with_the_size(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    answer = desk.ask_now(blob_path(content.digest), range="bytes=100-")
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(SMALL)}"
    assert b"RANGE_INVALID" in answer.body


@pytest.mark.parametrize(
    "headers",
    [
        {"range": "bytes=0-1,3-4"},
        {"range": "bytes=x"},
        {"range": "lines=1-2"},
        {"range": "bytes=0-1", "if_range": '"other"'},
        {"range": "bytes=0-1", "if_range": "Sat, 29 Oct 1994 19:43:31 GMT"},
    ],
)
def test_a_range_that_cannot_be_honoured_is_ignored(desk: Desk, headers: dict[str, str]) -> None:
    content = desk.cache.add(APP, SMALL)
    answer = desk.ask_now(blob_path(content.digest), **headers)
    assert (answer.status, answer.body) == (200, SMALL)


def test_a_range_on_head_is_ignored(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    answer = desk.ask_now(blob_path(content.digest), "HEAD", range="bytes=0-1")
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(SMALL)))


def test_if_range_of_the_same_content_lets_the_range_through(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    answer = desk.ask_now(
        blob_path(content.digest), range="bytes=0-1", if_range=f'"{content.digest}"'
    )
    assert (answer.status, answer.body) == (206, SMALL[:2])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("media_type", ["", INDEX_TYPE])
def test_what_the_client_has_is_304(desk: Desk, method: str, media_type: str) -> None:
    content = desk.cache.add(APP, SMALL, media_type, stored_at=NOW - 5)
    noun = "manifests" if media_type else "blobs"
    tags = f'"other", W/"{content.digest}"'
    answer = desk.ask_now(
        f"/v2/acme/app/{noun}/{content.digest}", method, if_none_match=tags, range="bytes=0-1"
    )
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{content.digest}"'
    assert answer.headers["cache-status"] == "moorage; hit"
    assert answer.headers["age"] == "5"
    assert not {"content-type", "content-length", "content-range"} & set(answer.headers)


def test_the_ns_that_chose_the_upstream_is_told(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    for extra, told in (("?ns=docker.io", "docker.io"), ("", None)):
        answer = desk.ask_now(blob_path(content.digest) + extra)
        assert answer.headers.get("oci-namespace") == told


def test_a_hit_belongs_to_its_repository(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    for target in (
        f"/v2/acme/other/blobs/{content.digest}",
        f"{blob_path(content.digest)}?ns=ghcr.io",
    ):
        assert not desk.api.respond_now(desk.exchange(target))


def test_a_clock_that_went_back_makes_no_negative_age(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL, stored_at=NOW + 100)
    assert desk.ask_now(blob_path(content.digest)).headers["age"] == "0"


def test_the_access_log_is_told_what_was_done(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    exchange = desk.exchange(blob_path(content.digest))
    assert desk.api.respond_now(exchange)
    assert (exchange.status, exchange.cache_status) == (200, "hit")
    assert (exchange.upstream, exchange.digest) == ("docker.io", content.digest)
    assert exchange.cause == ""


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_a_hit_whose_file_is_gone_is_fetched_anew(desk: Desk, data: bytes) -> None:
    content = desk.cache.add(APP, data)
    desk.cache.lose(content)
    exchange = desk.exchange(blob_path(content.digest))
    with desk.filling(data) as filled:
        filled.finish()
        assert not desk.api.respond_now(exchange)
        assert not exchange.head
        await desk.api.respond(exchange)
    answer = exchange.answer
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["cache-status"] == "moorage; fwd=uri-miss; fwd-status=200; stored"


async def test_a_request_that_had_to_queue_is_answered_alike(desk: Desk) -> None:
    content = desk.cache.add(APP, SMALL)
    for target, status in ((blob_path(content.digest), 200), ("/v2/", 200), ("/nowhere", 404)):
        exchange = desk.exchange(target)
        await desk.api.respond(exchange)
        assert exchange.answer.status == status
