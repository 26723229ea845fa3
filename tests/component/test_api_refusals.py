"""What is answered without asking anybody, and how failures are told and logged."""

import json
from pathlib import Path

import pytest

from engine.errors import (
    CacheError,
    UpstreamDenied,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.names import Tag
from tests.fakes.registry_api import APP, Desk

pytestmark = pytest.mark.anyio

TAG = "/v2/acme/app/manifests/1.0"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def codes(body: bytes) -> list[str]:
    return [error["code"] for error in json.loads(body)["errors"]]


def test_the_base_says_which_api_this_is(desk: Desk) -> None:
    for target, namespace in (("/v2/", None), ("/v2", None), ("/v2/?ns=ghcr.io", "ghcr.io")):
        answer = desk.ask_now(target)
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == "2"
        assert answer.headers.get("oci-namespace") == namespace


def test_the_root_is_alive(desk: Desk) -> None:
    answer = desk.ask_now("/")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize(
    "target", ["/v2/", TAG, f"/v2/acme/app/blobs/{DIGEST}", "/v2/acme/app/blobs/uploads/", "/x"]
)
def test_nothing_can_be_changed(desk: Desk, method: str, target: str) -> None:
    answer = desk.ask_now(target, method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert codes(answer.body) == ["UNSUPPORTED"]


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/favicon.ico", 404, "UNSUPPORTED"),
        ("/v1/_ping", 404, "UNSUPPORTED"),
        ("/v2/acme/app/blobs/uploads/1", 404, "UNSUPPORTED"),
        ("/v2/Acme/manifests/1", 400, "NAME_INVALID"),
        ("/v2/../../etc/manifests/1", 400, "NAME_INVALID"),
        ("/v2/acme%ff/manifests/1", 400, "NAME_INVALID"),
        ("/v2/acme/app/manifests/.INVALID", 404, "MANIFEST_UNKNOWN"),
        ("/v2/acme/app/manifests/sha256:1", 400, "DIGEST_INVALID"),
        ("/v2/acme/app/blobs/sha256:1", 400, "DIGEST_INVALID"),
        (f"{TAG}?ns=quay.io", 404, "NAME_UNKNOWN"),
        ("/v2/?ns=quay.io", 404, "NAME_UNKNOWN"),
    ],
)
def test_what_names_nothing_is_refused_and_nobody_is_asked(
    desk: Desk, target: str, status: int, code: str
) -> None:
    exchange = desk.exchange(target)
    assert desk.api.respond_now(exchange)
    answer = exchange.answer
    assert (answer.status, codes(answer.body)) == (status, [code])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-status"] == "moorage; detail=not-forwarded"
    assert exchange.cause
    assert desk.cache.calls == []


def test_an_unknown_ns_is_told_the_configured_ones(desk: Desk) -> None:
    message = json.loads(desk.ask_now(f"{TAG}?ns=quay.io").body)["errors"][0]["message"]
    for name in ("docker.io", "ghcr.io", "localhost:5001"):
        assert name in message


async def test_an_error_has_the_head_of_get_for_head(desk: Desk) -> None:
    got, head = [
        await desk.ask(TAG, method, **{"x-request-id": "same"}) for method in ("GET", "HEAD")
    ]
    assert got.status == head.status == 404
    assert head.headers == got.headers
    assert (len(got.body), head.body) == (int(head.headers["content-length"]), b"")


@pytest.mark.parametrize(
    ("error", "user_agent", "status", "code", "retry_after"),
    [
        (
            UpstreamUnavailable("upstream docker.io: connection refused"),
            "docker/26", 503, "UNAVAILABLE", "5",
        ),
        (
            UpstreamRateLimited("upstream docker.io answered 429", retry_after_s=37),
            "docker/26", 429, "TOOMANYREQUESTS", "37",
        ),
        (
            UpstreamRateLimited("upstream docker.io answered 429", retry_after_s=37),
            "containerd/2.1", 503, "UNAVAILABLE", "37",
        ),
        (
            UpstreamDenied("upstream docker.io: denied", upstream_status=401),
            "docker/26", 403, "DENIED", None,
        ),
    ],
)  # fmt: skip
async def test_an_upstreams_fault_is_told_as_such(
    desk: Desk,
    error: CacheError,
    user_agent: str,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    desk.cache.manifests[APP, Tag("1.0")] = error
    exchange = desk.exchange(f"{TAG}?ns=docker.io", user_agent=user_agent)
    await desk.respond(exchange)
    answer = exchange.answer
    assert (answer.status, codes(answer.body)) == (status, [code])
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers["oci-namespace"] == "docker.io"
    assert answer.headers["cache-status"].startswith("moorage; fwd=uri-miss; ")
    assert "www-authenticate" not in answer.headers
    assert str(error) in exchange.cause
    assert (exchange.upstream, exchange.cache_status) == ("docker.io", "")


async def test_an_outage_is_logged_once_not_for_each_request(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.cache.manifests[APP, Tag("1.0")] = UpstreamUnavailable("upstream docker.io: refused")
    for _ in range(50):
        assert (await desk.ask(TAG)).status == 503
    assert len(caplog.records) == 1
    assert "upstream docker.io: refused" in caplog.text


async def test_what_is_the_clients_own_is_not_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for target in (TAG, "/nowhere", "/v2/acme/app/blobs/x", f"{TAG}?ns=quay.io"):
        assert (await desk.ask(target)).status in (400, 404)
    assert caplog.records == []


async def test_a_bug_is_not_told_as_somebodys_fault(desk: Desk) -> None:
    """It passes through to the transport, which logs it and answers 500 or cuts."""
    del desk.cache.manifests
    with pytest.raises(AttributeError):
        await desk.ask(TAG)
