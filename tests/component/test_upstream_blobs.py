"""Blob bodies: ranges honest and not, redirects, and bodies that break, stall or lie."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.errors import (
    BlobUnknown,
    UpstreamDenied,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.names import Digest
from engine.upstream.registry import Registry
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_client import (
    BUSYBOX,
    QUICK,
    UNKNOWN,
    open_registry,
    read_all,
    read_some,
    soon,
)
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio

DATA = make_bytes(500_000)
SIZE = len(DATA)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
async def registry(upstream: ScriptedUpstream) -> AsyncIterator[Registry]:
    async with open_registry(upstream.settings()) as made:
        yield made


@pytest.fixture
def blob(upstream: ScriptedUpstream) -> Digest:
    return upstream.content.add_blob(BUSYBOX, DATA)


RANGES = [
    (0, 100, "bytes=0-99"),
    (100, 200, "bytes=100-199"),
    (100, None, "bytes=100-"),
    (SIZE - 1, SIZE, f"bytes={SIZE - 1}-{SIZE - 1}"),
    (100, SIZE + 50, f"bytes=100-{SIZE + 49}"),
]


@pytest.mark.parametrize(("start", "end", "sent"), RANGES)
async def test_a_range_is_asked_for_and_yields_its_bytes(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest, start: int, end: int, sent: str
) -> None:
    stream = await registry.open_blob(BUSYBOX, blob, start=start, end=end, deadline=soon())
    assert (stream.start, stream.size_bytes) == (start, SIZE)
    assert await read_all(stream) == DATA[start:end]
    assert upstream.seen(kind="blob")[0].header("range") == sent


@pytest.mark.parametrize(("start", "end", "sent"), RANGES[:-1])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_an_upstream_that_ignores_ranges_yields_the_same_bytes(
    upstream: ScriptedUpstream,
    registry: Registry,
    blob: Digest,
    start: int,
    end: int,
    sent: str,
    is_chunked: bool,
) -> None:
    upstream.fail(Fault(no_range=True, chunked=is_chunked))
    stream = await registry.open_blob(BUSYBOX, blob, start=start, end=end, deadline=soon())
    assert stream.size_bytes == (None if is_chunked else SIZE)
    assert await read_all(stream) == DATA[start:end], sent


async def test_a_body_that_ends_before_the_range_does_is_not_whole(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(no_range=True, chunked=True))
    stream = await registry.open_blob(BUSYBOX, blob, end=SIZE + 50, deadline=soon())
    body, error = await read_some(stream)
    assert body == DATA
    assert isinstance(error, UpstreamUnavailable)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(range_shift=1),
        Fault(headers={"Content-Range": f"bytes 0-99/{SIZE}"}),
        Fault(headers={"Content-Range": "bytes 100-99/10"}),
        Fault(headers={"Content-Range": "bytes */5"}),
        Fault(headers={"Content-Range": None}),
        Fault(status=416),
        Fault(status=204),
        Fault(status=302),  # without a Location
        Fault(headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_is_refused(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest, fault: Fault
) -> None:
    upstream.fail(fault)
    with pytest.raises(UpstreamProtocolError):
        await registry.open_blob(BUSYBOX, blob, start=100, end=200, deadline=soon())
    assert upstream.count() == 1


async def test_a_206_that_nobody_asked_for_is_refused_unless_it_is_the_whole(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(status=206))
    with pytest.raises(UpstreamProtocolError):
        await registry.open_blob(BUSYBOX, blob, deadline=soon())


async def test_a_206_that_holds_less_than_asked_yields_it_and_breaks(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(
        Fault(headers={"Content-Range": f"bytes 100-149/{SIZE}"}, body=DATA[100:150]), times=1
    )
    upstream.rules[-1].fault.headers["Content-Length"] = "50"
    stream = await registry.open_blob(BUSYBOX, blob, start=100, end=200, deadline=soon())
    body, error = await read_some(stream)
    assert body == DATA[100:150]
    assert isinstance(error, UpstreamUnavailable)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(truncate_at=200_000),
        Fault(truncate_at=200_000, chunked=True),
        Fault(headers={"Content-Length": str(SIZE + 1)}),
        Fault(truncate_at=0),
    ],
)
async def test_a_body_that_ends_early_never_looks_whole(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest, fault: Fault
) -> None:
    upstream.fail(fault)
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    body, error = await read_some(stream)
    assert DATA.startswith(body)
    assert isinstance(error, UpstreamUnavailable)
    assert "127.0.0.1" in str(error)


async def test_a_reset_in_the_middle_is_unavailable(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(reset_at=200_000))
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    body, error = await read_some(stream)
    assert DATA.startswith(body)
    assert isinstance(error, UpstreamUnavailable)


async def test_a_body_that_stalls_is_given_up(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    gate = Gate()
    upstream.fail(Fault(stall_at=200_000, gate=gate))
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    body, error = await read_some(stream)
    assert body == DATA[:200_000]
    assert isinstance(error, UpstreamUnavailable)
    assert "stalled" in str(error)


async def test_a_slow_body_is_not_a_stalled_one(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    digest = upstream.content.add_blob(BUSYBOX, DATA[:20])
    upstream.fail(Fault(drip_bytes=1, drip_s=QUICK.stall_s / 10))
    stream = await registry.open_blob(BUSYBOX, digest, deadline=soon())
    assert await read_all(stream) == DATA[:20]


async def test_a_body_longer_than_its_content_range_is_refused(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(body=DATA[100:400], chunked=True))
    stream = await registry.open_blob(BUSYBOX, blob, start=100, end=200, deadline=soon())
    _, error = await read_some(stream)
    assert isinstance(error, UpstreamUnavailable)
    assert "longer" in str(error)


@pytest.mark.parametrize("at", [0, 7, SIZE])
async def test_an_empty_range_yields_nothing(registry: Registry, blob: Digest, at: int) -> None:
    stream = await registry.open_blob(BUSYBOX, blob, start=at, end=at, deadline=soon())
    assert (stream.size_bytes, await read_all(stream)) == (SIZE, b"")


async def test_a_blob_of_unknown_size_streams_to_its_end(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(chunked=True))
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    assert stream.size_bytes is None
    assert await read_all(stream) == DATA


async def test_an_empty_blob_is_whole_at_once(
    upstream: ScriptedUpstream, registry: Registry
) -> None:
    empty = upstream.content.add_blob(BUSYBOX, b"")
    stream = await registry.open_blob(BUSYBOX, empty, deadline=soon())
    assert (stream.size_bytes, await read_all(stream)) == (0, b"")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_without_authorization(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest, status: int
) -> None:
    upstream.auth.require_token()
    upstream.redirect_blobs = status
    stream = await registry.open_blob(BUSYBOX, blob, start=5, end=9, deadline=soon())
    assert await read_all(stream) == DATA[5:9]
    seen = upstream.seen(kind="cdn")[0]
    assert (seen.status, seen.header("authorization")) == (206, None)


async def test_an_expired_url_is_asked_for_anew(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.redirect_blobs = 307
    upstream.fail(Fault(status=403), kind="cdn", times=2)
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    assert await read_all(stream) == DATA
    assert (upstream.count(kind="blob"), upstream.count(kind="cdn")) == (3, 3)


async def test_a_target_that_refuses_every_url_is_a_denial(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.redirect_blobs = 307
    upstream.fail(Fault(status=403), kind="cdn", times=None)
    with pytest.raises(UpstreamDenied, match="refused 4 URLs"):
        await registry.open_blob(BUSYBOX, blob, deadline=soon())
    assert upstream.count(kind="blob") == 4


async def test_head_of_a_blob_whose_storage_refuses_heads_means_that_it_is_there(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.redirect_blobs = 307
    upstream.fail(Fault(status=403), kind="cdn", method="HEAD", times=None)
    assert await registry.head_blob(BUSYBOX, blob, deadline=soon()) is None


async def test_a_redirect_loop_is_a_protocol_error(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(redirect_to=f"/v2/{BUSYBOX}/blobs/{blob}"), times=None)
    with pytest.raises(UpstreamProtocolError, match="more than 5 redirects"):
        await registry.open_blob(BUSYBOX, blob, deadline=soon())
    assert upstream.count() == 6


@pytest.mark.parametrize("name", ["a..test", "a" * 64 + ".test"])
async def test_a_redirect_to_a_name_that_no_host_can_have_is_a_protocol_error(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest, name: str
) -> None:
    upstream.fail(Fault(redirect_to=f"http://{name}/"))
    with pytest.raises(UpstreamProtocolError, match="no host has such a name"):
        await registry.open_blob(BUSYBOX, blob, deadline=soon())


async def test_a_transient_fault_of_the_target_is_retried_with_a_fresh_url(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.redirect_blobs = 307
    upstream.fail(Fault(status=503), kind="cdn")
    upstream.fail(Fault(drop=True), kind="cdn")
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    assert await read_all(stream) == DATA


async def test_a_429_of_blobs_does_not_pause_heads(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    upstream.fail(Fault(status=429, headers={"Retry-After": "30"}), method="GET")
    with pytest.raises(UpstreamRateLimited):
        await registry.open_blob(BUSYBOX, blob, deadline=soon())
    with pytest.raises(UpstreamRateLimited, match="not asked"):
        await registry.open_blob(BUSYBOX, blob, deadline=soon())
    assert await registry.head_blob(BUSYBOX, blob, deadline=soon()) == SIZE
    assert upstream.count(method="GET") == 1


async def test_bodies_under_way_leave_connections_to_manifests(
    upstream: ScriptedUpstream, blob: Digest
) -> None:
    image = upstream.content.add_image(BUSYBOX, "1.35")
    async with open_registry(upstream.settings(max_connections=4)) as registry:
        streams = [await registry.open_blob(BUSYBOX, blob, deadline=soon()) for _ in range(3)]
        with pytest.raises(UpstreamUnavailable, match="all 3 connections"):
            await registry.open_blob(BUSYBOX, blob, deadline=soon(0.05))
        await registry.get_manifest(BUSYBOX, image.manifest, deadline=soon())
        assert upstream.registry.open_count <= 4
        for stream in streams:
            await stream.aclose()


async def test_a_closed_stream_gives_its_connection_to_the_next_in_line(
    upstream: ScriptedUpstream, blob: Digest
) -> None:
    async with open_registry(upstream.settings(max_connections=2)) as registry:
        held = await registry.open_blob(BUSYBOX, blob, deadline=soon())
        waiting = asyncio.create_task(registry.open_blob(BUSYBOX, blob, deadline=soon()))
        await held.aclose()
        await held.aclose()
        assert await read_all(await waiting) == DATA


async def test_no_slot_is_lost_whatever_happens(upstream: ScriptedUpstream, blob: Digest) -> None:
    faults = [
        Fault(status=404),
        Fault(status=416),
        Fault(range_shift=1),
        Fault(status=403),
        Fault(truncate_at=10),
        Fault(drop=True),
    ]
    async with open_registry(upstream.settings(max_connections=2)) as registry:
        for fault in faults:
            upstream.fail(fault)
            try:
                stream = await registry.open_blob(BUSYBOX, blob, start=1, deadline=soon())
            except (BlobUnknown, UpstreamProtocolError, UpstreamDenied):
                continue
            await read_some(stream)
        stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
        assert await read_all(stream) == DATA


@pytest.mark.parametrize("kind", ["blob", "token", "cdn"])
async def test_cancelling_an_open_at_any_stage_leaves_a_working_registry(
    upstream: ScriptedUpstream, blob: Digest, kind: str
) -> None:
    upstream.auth.require_token()
    upstream.redirect_blobs = 307
    async with open_registry(upstream.settings(max_connections=2)) as registry:
        gate = Gate()
        upstream.fail(Fault(hold=gate), kind=kind)
        task = asyncio.create_task(registry.open_blob(BUSYBOX, blob, deadline=soon()))
        await gate.wait_reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        assert await read_all(await registry.open_blob(BUSYBOX, blob, deadline=soon())) == DATA


async def test_cancelling_a_read_closes_the_connection(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    gate = Gate()
    upstream.fail(Fault(stall_at=200_000, gate=gate))
    stream = await registry.open_blob(BUSYBOX, blob, deadline=soon())
    received = 0
    while received < 200_000:
        received += len(await anext(aiter(stream)))
    task = asyncio.create_task(read_all(stream))
    await asyncio.sleep(0)  # one turn, in which it begins to wait for more
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    await upstream.wait_until(lambda: upstream.registry.open_count == 0)


async def test_connections_are_kept_and_used_again(
    upstream: ScriptedUpstream, registry: Registry, blob: Digest
) -> None:
    for _ in range(3):
        await read_all(await registry.open_blob(BUSYBOX, blob, deadline=soon()))
    with pytest.raises(BlobUnknown):
        await registry.open_blob(BUSYBOX, UNKNOWN, deadline=soon())
    await read_all(await registry.open_blob(BUSYBOX, blob, deadline=soon()))
    assert upstream.registry.connections_count == 1
