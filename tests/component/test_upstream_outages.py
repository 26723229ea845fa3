"""What follows from a 429 and from an outage: pauses of one kind, and the circuit breaker."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from engine.errors import (
    ManifestUnknown,
    UpstreamDenied,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.names import Tag
from engine.upstream.kinds import Kind
from engine.upstream.registry import Registry
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_client import (
    BUSYBOX,
    QUICK,
    WITH_BREAKER,
    open_registry,
    read_all,
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


async def test_a_429_is_not_retried_and_pauses_its_kind(
    upstream: ScriptedUpstream, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    limited = Fault(
        status=429, code="TOOMANYREQUESTS", message="You have reached", headers={"Retry-After": "9"}
    )
    upstream.fail(limited, method="GET", times=None)
    with caplog.at_level(logging.WARNING), pytest.raises(UpstreamRateLimited) as first:
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert first.value.retry_after_s == 9.0
    assert "You have reached" in str(first.value)
    assert "pause_s=9" in caplog.text
    with pytest.raises(UpstreamRateLimited, match="not asked") as second:
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert 0.0 < second.value.retry_after_s < 9.001  # the clock is a float
    assert upstream.count(method="GET") == 1
    assert registry.counts.refused == {(Kind.MANIFEST, "paused"): 1}
    await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_probe_that_is_answered_ends_the_pause(upstream: ScriptedUpstream) -> None:
    upstream.fail(Fault(status=429))
    async with open_registry(upstream.settings(), replace(QUICK, probe_s=0.0)) as registry:
        with pytest.raises(UpstreamRateLimited) as caught:
            await registry.get_manifest(BUSYBOX, TAG, deadline=soon())
        assert caught.value.retry_after_s == 60.0
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon())


async def test_the_second_failure_is_fast_and_names_the_first_ones_cause(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.fail(Fault(status=503, message="on fire"), times=None)
    async with open_registry(upstream.settings(), WITH_BREAKER) as registry:
        with caplog.at_level(logging.WARNING), pytest.raises(UpstreamUnavailable):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.5))
        assert "upstream is unavailable upstream=docker.io" in caplog.text
        asked = upstream.count()
        with pytest.raises(UpstreamUnavailable, match=r"not asked for now.*503") as caught:
            await registry.get_manifest(BUSYBOX, TAG, deadline=soon(1000.0))
        assert upstream.count() == asked
        assert caught.value.retry_after_s is not None
        assert caught.value.upstream_status == 503


async def test_an_open_breaker_of_manifests_lets_blobs_through(upstream: ScriptedUpstream) -> None:
    upstream.fail(Fault(status=503), kind="manifest", times=None)
    digest = upstream.content.add_blob(BUSYBOX, b"layer")
    async with open_registry(upstream.settings(), WITH_BREAKER) as registry:
        with pytest.raises(UpstreamUnavailable):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.05))
        stream = await registry.open_blob(BUSYBOX, digest, deadline=soon())
        assert await read_all(stream) == b"layer"


# Opens for so short that the next operation is a probe (uvloop counts time in milliseconds).
PROBING = replace(WITH_BREAKER, breaker_first_s=1e-300, breaker_max_s=1e-300)


async def break_it(upstream: ScriptedUpstream, registry: Registry) -> None:
    # Refused connections, since a request that a deadline cut could arrive after the repair.
    await upstream.stop()
    with pytest.raises(UpstreamUnavailable):
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.05))
    await upstream.start()


async def test_a_probe_that_is_answered_closes_the_breaker(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_registry(upstream.settings(), PROBING) as registry:
        await break_it(upstream, registry)
        with caplog.at_level(logging.WARNING), pytest.raises(ManifestUnknown):
            await registry.head_manifest(BUSYBOX, Tag("none"), deadline=soon())
        assert "upstream is back upstream=docker.io lane=control" in caplog.text
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_probe_that_fails_is_not_retried(upstream: ScriptedUpstream) -> None:
    async with open_registry(upstream.settings(), PROBING) as registry:
        await break_it(upstream, registry)
        upstream.fail(Fault(status=503))
        with pytest.raises(UpstreamUnavailable, match="503"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
        assert upstream.count() == 1


async def test_a_cancelled_probe_lets_the_next_one_probe(upstream: ScriptedUpstream) -> None:
    async with open_registry(upstream.settings(), PROBING) as registry:
        await break_it(upstream, registry)
        gate = Gate()
        upstream.fail(Fault(hold=gate))
        probe = asyncio.create_task(registry.head_manifest(BUSYBOX, TAG, deadline=soon()))
        await gate.wait_reached()
        with pytest.raises(UpstreamUnavailable, match="not asked"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        gate.open()
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


@pytest.mark.parametrize("status", [401, 403, 404, 429])
async def test_refusals_are_answers_and_open_no_breaker(
    upstream: ScriptedUpstream, status: int
) -> None:
    upstream.fail(Fault(status=status))
    async with open_registry(upstream.settings(), WITH_BREAKER) as registry:
        with pytest.raises((UpstreamDenied, ManifestUnknown, UpstreamRateLimited)):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
        await registry.get_manifest(BUSYBOX, TAG, deadline=soon())
