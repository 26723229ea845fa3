"""An upstream in trouble: retries, pauses, the circuit breaker, and what the errors say."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import (
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from engine.names import Tag
from engine.upstream.registry import Registry
from tests.fakes.untrusted import make_untrusted_tls
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_client import (
    BUSYBOX,
    QUICK,
    open_registry,
    soon,
)

pytestmark = pytest.mark.anyio

TAG = Tag("1.35")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        scripted.content.add_image(BUSYBOX, TAG)
        yield scripted


@pytest.fixture
async def registry(upstream: ScriptedUpstream) -> AsyncIterator[Registry]:
    async with open_registry(upstream.settings()) as made:
        yield made


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=502),
        Fault(status=503),
        Fault(status=408),
        Fault(drop=True),
        Fault(truncate_at=10),
        Fault(reset_at=10),
    ],
)
async def test_transient_faults_are_hidden_by_retries(
    upstream: ScriptedUpstream, registry: Registry, fault: Fault
) -> None:
    upstream.fail(fault, times=3)
    manifest = await registry.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert manifest.digest == upstream.content.holding(BUSYBOX).tags[TAG]
    assert registry.counts.retries >= 1


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_lasting_5xx_is_unavailable_with_status_host_and_words(
    upstream: ScriptedUpstream, registry: Registry, status: int
) -> None:
    upstream.fail(Fault(status=status, code="UNKNOWN", message="on fire"), times=None)
    with pytest.raises(UpstreamUnavailable, match=rf"127\.0\.0\.1.*{status}.*on fire") as caught:
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon(0.5))
    assert caught.value.upstream_status == status
    assert upstream.count() >= 2


@pytest.mark.parametrize("status", [400, 402, 405, 409, 418, 451, 204, 206, 301])
async def test_an_unexpected_status_is_a_protocol_error_and_not_retried(
    upstream: ScriptedUpstream, registry: Registry, status: int
) -> None:
    upstream.fail(Fault(status=status), times=None)
    with pytest.raises(UpstreamProtocolError, match=str(status)):
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count() == 1


@pytest.mark.parametrize("status", [405, 501])
async def test_a_head_that_is_not_supported_is_a_protocol_error(
    upstream: ScriptedUpstream, registry: Registry, status: int
) -> None:
    upstream.fail(Fault(status=status), method="HEAD", times=None)
    with pytest.raises(UpstreamProtocolError):
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    await registry.get_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_head_without_its_headers_says_so(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    bare = {"Docker-Content-Digest": "sha256:short", "Content-Type": None, "Content-Length": None}
    upstream.fail(Fault(headers=bare))
    head = await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert (head.digest, head.size_bytes, head.media_type) == (None, None, None)


async def test_a_manifest_larger_than_the_bound_is_refused(upstream: ScriptedUpstream) -> None:
    async with open_registry(upstream.settings(), replace(QUICK, max_manifest_bytes=100)) as small:
        with pytest.raises(UpstreamProtocolError, match="larger than 100 bytes"):
            await small.get_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_compressed_manifest_is_refused_since_its_digest_is_of_other_bytes(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    upstream.fail(Fault(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(UpstreamProtocolError, match="gzip"):
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon())


async def test_an_endless_list_is_refused(upstream: ScriptedUpstream) -> None:
    again = {"Link": f'</v2/{BUSYBOX}/tags/list?n=1>; rel="next"'}
    upstream.fail(Fault(headers={**again}), kind="tags", times=None)
    async with open_registry(upstream.settings(), replace(QUICK, max_pages=5)) as registry:
        with pytest.raises(UpstreamProtocolError, match="does not end"):
            await registry.list_tags(BUSYBOX, deadline=soon())
    assert upstream.count() == 6


async def test_a_next_page_at_another_host_is_refused(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    upstream.fail(Fault(headers={"Link": f'<{upstream.cdn.url}/tags>; rel="next"'}))
    with pytest.raises(UpstreamProtocolError, match="next page"):
        await registry.list_tags(BUSYBOX, deadline=soon())
    assert upstream.count(kind="cdn") == 0


async def test_an_upstream_that_is_down_is_unavailable_with_the_reason(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    await upstream.stop()
    with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1:\d+: connection refused"):
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon(0.3))
    await upstream.start()
    await registry.get_manifest(BUSYBOX, TAG, deadline=soon())


async def test_an_upstream_in_trouble_is_asked_no_more_often_than_the_budget_allows(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    upstream.fail(Fault(status=503), times=None)
    began_at = soon(0.0)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(fail_to_get(registry, soon(0.4)))
    lasted_s = soon(0.0) - began_at
    # Each once, ten retries at hand, a fifth of a retry earned by each, ten more a second.
    assert 5 < upstream.count() <= 5 + 10 + 1 + 10 * lasted_s + 1


async def fail_to_get(registry: Registry, deadline: float) -> None:
    with pytest.raises(UpstreamUnavailable):
        await registry.get_manifest(BUSYBOX, TAG, deadline=deadline)


async def test_an_upstream_that_comes_back_within_the_deadline_is_no_failure(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    await upstream.stop()
    asked = asyncio.create_task(registry.get_manifest(BUSYBOX, TAG, deadline=soon()))
    while registry.counts.retries < 2:  # noqa: ASYNC110 -- nobody listens, so nothing tells
        await asyncio.sleep(0.001)
    await upstream.start()
    assert (await asked).body


async def test_a_name_that_does_not_resolve_is_unavailable(upstream: ScriptedUpstream) -> None:
    settings = replace(upstream.settings(), url="http://registry.invalid")
    async with open_registry(settings) as registry:
        with pytest.raises(UpstreamUnavailable, match=r"registry\.invalid|no complete answer"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.2))


async def test_an_upstream_that_says_nothing_is_given_up_at_the_deadline(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    gate = Gate()
    upstream.fail(Fault(hold=gate), times=None)
    with pytest.raises(UpstreamUnavailable, match="no complete answer"):
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon(0.05))
    gate.open()


async def test_a_lost_request_is_sent_again_within_the_deadline(
    upstream: ScriptedUpstream,
) -> None:
    gate = Gate()
    upstream.fail(Fault(hold=gate))
    async with open_registry(upstream.settings(), replace(QUICK, attempt_s=0.05)) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    gate.open()


async def test_what_is_no_http_is_a_protocol_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, ScriptedUpstream() as upstream:
        port = server.sockets[0].getsockname()[1]
        settings = replace(upstream.settings(), url=f"http://127.0.0.1:{port}")
        async with open_registry(settings) as registry:
            with pytest.raises(UpstreamProtocolError, match="not HTTP"):
                await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_certificate_that_is_not_trusted_is_unavailable_and_named(tmp_path: Path) -> None:
    async with ScriptedUpstream(tls=make_untrusted_tls(tmp_path)) as upstream:
        assert upstream.url.startswith("https://")
        async with open_registry(upstream.settings()) as registry:
            with pytest.raises(UpstreamUnavailable, match="certificate is not trusted"):
                await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.2))


async def test_closing_ends_a_token_fetch_under_way(upstream: ScriptedUpstream) -> None:
    upstream.auth.require_token()
    gate = Gate()
    upstream.fail(Fault(hold=gate), kind="token")
    async with open_registry(upstream.settings()) as registry:
        task = asyncio.create_task(registry.head_manifest(BUSYBOX, TAG, deadline=soon()))
        await gate.wait_reached()
    with pytest.raises(UpstreamUnavailable, match="stopping"):
        await task
    gate.open()
