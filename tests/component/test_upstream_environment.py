"""What the environment may and may not do to requests: proxies yes, ~/.netrc no."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UpstreamUnavailable
from engine.names import Tag
from tests.fakes.upstream import Fault, ScriptedUpstream, ThreadedUpstream
from tests.fakes.upstream_client import BUSYBOX, open_registry, read_all, soon

pytestmark = pytest.mark.anyio

TAG = Tag("1.35")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        scripted.content.add_image(BUSYBOX, TAG)
        yield scripted


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_netrc_is_not_a_source_of_credentials(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with open_registry(upstream.settings()) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.requests[0].header("authorization") is None


async def test_a_proxy_is_used_with_its_own_login(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scripted upstream answers requests in absolute form too, so it can play the proxy.
    monkeypatch.setenv("HTTP_PROXY", upstream.url.replace("//", "//ann:s3cret@"))
    settings = replace(upstream.settings(), url="http://registry.example.test")
    async with open_registry(settings) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    seen = upstream.requests[0]
    assert seen.header("host") == "registry.example.test"
    assert (seen.header("proxy-authorization") or "").startswith("Basic ")
    assert seen.header("authorization") is None


async def test_a_proxy_that_refuses_to_connect_is_named(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", upstream.url.replace("//", "//ann:s3cret@"))
    settings = replace(upstream.settings(), url="https://registry.example.test")
    async with open_registry(settings) as registry:
        with pytest.raises(UpstreamUnavailable, match="the HTTP proxy answered 404") as caught:
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.3))
    seen = upstream.requests[0]
    assert seen.method == "CONNECT"
    assert (seen.header("proxy-authorization") or "").startswith("Basic ")
    assert "s3cret" not in str(caught.value)


async def test_a_proxy_without_a_scheme_or_login_will_do(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", upstream.url.removeprefix("http://"))
    settings = replace(upstream.settings(), url="http://registry.example.test")
    async with open_registry(settings) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.requests[0].header("proxy-authorization") is None


async def test_no_proxy_is_heeded(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", upstream.url)
    monkeypatch.setenv("NO_PROXY", ".invalid")
    settings = replace(upstream.settings(), url="http://registry.invalid")
    async with open_registry(settings) as registry:
        with pytest.raises(UpstreamUnavailable):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.3))
    assert upstream.count() == 0


async def test_loopback_is_never_asked_through_a_proxy(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with open_registry(upstream.settings()) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_proxy_that_is_down_is_unavailable(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    settings = replace(upstream.settings(), url="http://registry.example.test")
    async with open_registry(settings) as registry:
        with pytest.raises(UpstreamUnavailable, match="connection refused"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.3))


async def test_cookies_are_never_sent_back(upstream: ScriptedUpstream) -> None:
    upstream.fail(Fault(headers={"Set-Cookie": "track=me"}), times=None)
    async with open_registry(upstream.settings()) as registry:
        for _ in range(2):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.requests[1].header("cookie") is None


async def test_one_connection_is_enough(upstream: ScriptedUpstream) -> None:
    upstream.auth.require_token()
    digest = upstream.content.add_blob(BUSYBOX, b"layer")
    async with open_registry(upstream.settings(max_connections=1)) as registry:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(registry.head_manifest(BUSYBOX, TAG, deadline=soon()))
        for _ in range(2):
            stream = await registry.open_blob(BUSYBOX, digest, deadline=soon())
            assert await read_all(stream) == b"layer"


async def test_the_scripted_upstream_runs_in_a_thread_too() -> None:
    with ThreadedUpstream() as threaded:
        upstream = threaded.upstream
        upstream.content.add_image(BUSYBOX, TAG)
        async with open_registry(upstream.settings()) as registry:
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
        threaded.run(upstream.wait_requests(1, kind="manifest"))
        assert upstream.count() == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_a_proxy_that_is_no_url_is_told_without_its_login(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://ann:s3cret@[bad")
    settings = replace(upstream.settings(), url="http://registry.example.test")
    async with open_registry(settings) as registry:
        with pytest.raises(
            UpstreamUnavailable, match="HTTP_PROXY is no URL: 'http://\\[bad'"
        ) as caught:
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.3))
    assert "s3cret" not in str(caught.value)
