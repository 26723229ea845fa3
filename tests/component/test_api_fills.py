"""A blob that is being filled is streamed to each client as it arrives, and never wrongly ended."""

import asyncio
import os
from pathlib import Path

import pytest

from engine.errors import BlobUnknown, UpstreamRateLimited, UpstreamUnavailable
from engine.fill import HELD_BACK_BYTES, Outcome
from engine.lookup import BlobHead, CacheStatus
from server.exchange import ClientGone
from server.side import NEAR_BYTES
from tests.fakes.cache import FilledBlob, digest_of
from tests.fakes.exchange import FakeExchange
from tests.fakes.registry_api import APP, NOW, Desk

pytestmark = pytest.mark.anyio

KIB = 1024
DATA = os.urandom(512 * KIB)
HELD_FROM = len(DATA) - HELD_BACK_BYTES
UNAVAILABLE = UpstreamUnavailable("upstream docker.io: connection refused")
# Far past the frontier, with room for a part before the end that is held back.
VAST = os.urandom(NEAR_BYTES + 512 * KIB)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def path_of(filled: FilledBlob) -> str:
    return f"/v2/acme/app/blobs/{filled.fill.digest}"


def begin(desk: Desk, exchange: FakeExchange) -> "asyncio.Task[None]":
    """Respond in a task, as the transport does."""
    assert not desk.api.respond_now(exchange)
    return asyncio.create_task(desk.api.respond(exchange))


async def test_the_head_and_first_bytes_leave_while_the_rest_arrives(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled) + "?ns=docker.io")
        task = begin(desk, exchange)
        filled.write_to(200 * KIB)
        await exchange.received(200 * KIB)
        filled.write_to(300 * KIB)
        await exchange.received(300 * KIB)
        assert not task.done()
        filled.finish()
        await task
    answer = exchange.answer
    assert (answer.status, answer.body, answer.is_whole) == (200, DATA, True)
    assert exchange.length == len(DATA)
    assert answer.headers == {
        "content-type": "application/octet-stream",
        "docker-content-digest": filled.fill.digest,
        "etag": f'"{filled.fill.digest}"',
        "cache-control": "max-age=31536000, immutable",
        "accept-ranges": "bytes",
        "cache-status": "moorage; fwd=uri-miss; fwd-status=200; stored",
        "oci-namespace": "docker.io",
    }
    assert (exchange.cache_status, exchange.upstream) == ("miss", "docker.io")
    assert exchange.digest == filled.fill.digest


async def test_the_end_leaves_only_when_it_is_verified(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(len(DATA))
        await exchange.received(HELD_FROM)
        assert not task.done()
        assert len(exchange.body) == HELD_FROM
        filled.finish()
        await task
    assert exchange.answer.body == DATA


async def test_a_small_blob_has_no_head_before_it_is_verified(desk: Desk) -> None:
    with desk.filling(DATA[: 10 * KIB]) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(10 * KIB)
        await asyncio.sleep(0)
        assert not exchange.head
        filled.finish()
        await task
    assert exchange.answer.body == DATA[: 10 * KIB]


async def test_a_small_blob_that_stalls_is_503_in_time_and_its_fill_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk.filling(DATA[: 10 * KIB]) as filled:
        filled.write_to(5 * KIB)
        with monkeypatch.context() as patch:
            patch.setattr("server.streamed.HEAD_WAIT_S", 0.0)
            answer = await desk.ask(path_of(filled))
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert b"still awaited" in answer.body
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.finish()
        await task
    assert exchange.answer.body == DATA[: 10 * KIB]


async def test_many_clients_follow_one_fill(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchanges = [desk.exchange(path_of(filled)) for _ in range(20)]
        tasks = [begin(desk, exchange) for exchange in exchanges]
        for offset in range(50 * KIB, len(DATA), 50 * KIB):
            filled.write_to(offset)
            await asyncio.sleep(0)
        filled.finish()
        await asyncio.gather(*tasks)
    assert all(exchange.answer.body == DATA for exchange in exchanges)


async def test_a_fill_that_breaks_cuts_the_connection(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(200 * KIB)
        await exchange.received(200 * KIB)
        filled.fail(UNAVAILABLE)
        await task
    assert exchange.is_aborted
    assert not exchange.is_finished
    assert exchange.cause == str(UNAVAILABLE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(UNAVAILABLE) in caplog.text


async def test_a_fill_that_ends_short_of_its_promise_is_cut(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(200 * KIB)
        await exchange.received(200 * KIB)
        filled.fill.end(Outcome.DONE)
        await task
    assert exchange.is_aborted
    assert not exchange.is_finished


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UNAVAILABLE, 503),
        (UpstreamRateLimited("upstream docker.io answered 429", retry_after_s=9), 429),
        (BlobUnknown("no such blob"), 404),
    ],
)
@pytest.mark.parametrize("asked", [None, "bytes=5-"])
async def test_a_fill_that_fails_before_the_head_is_told(
    desk: Desk, error: UpstreamUnavailable, status: int, asked: str | None
) -> None:
    with desk.filling(DATA) as filled:
        headers = {"range": asked} if asked else {}
        exchange = desk.exchange(path_of(filled), **headers)
        task = begin(desk, exchange)
        filled.fail(error)
        await task
    answer = exchange.answer
    assert (answer.status, answer.is_whole) == (status, True)
    assert str(error) in answer.body.decode()
    assert str(error) in exchange.cause


async def test_a_range_within_reach_is_served_from_the_fill(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={100 * KIB}-{200 * KIB - 1}")
        task = begin(desk, exchange)
        filled.write_to(150 * KIB)
        await exchange.received(50 * KIB)
        filled.write_to(250 * KIB)
        await task
        assert filled.fill.outcome is None, "a part before the end waits for nothing more"
        filled.finish()
    answer = exchange.answer
    assert (answer.status, answer.body) == (206, DATA[100 * KIB : 200 * KIB])
    assert answer.headers["content-range"] == (f"bytes {100 * KIB}-{200 * KIB - 1}/{len(DATA)}")
    assert desk.cache.side_ranges == []


async def test_a_part_that_holds_the_end_waits_for_verification(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled), range="bytes=-100")
        task = begin(desk, exchange)
        filled.write_to(len(DATA))
        await exchange.received(0)
        assert exchange.body == b""
        filled.finish()
        await task
    assert (exchange.answer.status, exchange.answer.body) == (206, DATA[-100:])


async def test_a_range_outside_a_fill_is_416(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={len(DATA)}-")
        task = begin(desk, exchange)
        filled.write_to(100 * KIB)
        await task
        filled.finish()
    assert exchange.answer.status == 416
    assert exchange.answer.headers["content-range"] == f"bytes */{len(DATA)}"


async def test_several_ranges_of_a_fill_are_the_whole(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled), range="bytes=0-1,5-6")
        task = begin(desk, exchange)
        filled.finish()
        await task
    assert (exchange.answer.status, exchange.answer.body) == (200, DATA)


async def test_a_body_of_unknown_size_is_chunked(desk: Desk) -> None:
    with desk.filling(DATA, is_size_known=False) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(200 * KIB)
        await exchange.received(100 * KIB)
        assert not task.done()
        filled.finish()
        await task
    answer = exchange.answer
    assert (answer.status, answer.body, answer.is_chunked) == (200, DATA, True)


async def test_a_body_of_unknown_size_that_breaks_is_not_finished(desk: Desk) -> None:
    with desk.filling(DATA, is_size_known=False) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(200 * KIB)
        await exchange.received(100 * KIB)
        filled.fail(UNAVAILABLE)
        await task
    assert exchange.is_aborted
    assert not exchange.is_finished


async def test_a_range_waits_for_a_size_that_upstream_does_not_tell(desk: Desk) -> None:
    with desk.filling(DATA, is_size_known=False) as filled:
        exchange = desk.exchange(path_of(filled), range="bytes=-10")
        task = begin(desk, exchange)
        filled.write_to(400 * KIB)
        await asyncio.sleep(0)
        assert not exchange.head
        filled.finish()
        await task
    assert (exchange.answer.status, exchange.answer.body) == (206, DATA[-10:])


async def test_a_size_that_does_not_come_in_time_makes_it_the_whole(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.streamed.SIZE_WAIT_S", 0.0)
    with desk.filling(DATA, is_size_known=False) as filled:
        exchange = desk.exchange(path_of(filled), range="bytes=-10")
        task = begin(desk, exchange)
        filled.write_to(400 * KIB)
        await exchange.received(0)
        filled.finish()
        await task
    assert (exchange.answer.status, exchange.answer.body) == (200, DATA)


async def test_a_client_that_leaves_is_no_error_and_frees_its_reader(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled))
        exchange.gone_after_bytes = 100 * KIB
        task = begin(desk, exchange)
        filled.write_to(200 * KIB)
        with pytest.raises(ClientGone):
            await task
        assert filled.reader_count == 0
        filled.finish()
    assert caplog.records == []


@pytest.mark.parametrize("written_bytes", [0, 100 * KIB, len(DATA)])
async def test_a_request_that_is_cancelled_frees_its_reader(desk: Desk, written_bytes: int) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        filled.write_to(written_bytes)
        for _ in range(5):
            await asyncio.sleep(0)
        assert filled.reader_count == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert filled.reader_count == 0
        filled.finish()


async def test_the_fill_may_begin_anew_until_a_head_left_and_not_after(desk: Desk) -> None:
    with desk.filling(DATA) as filled:
        exchange = desk.exchange(path_of(filled))
        task = begin(desk, exchange)
        await asyncio.sleep(0)
        was_exposed = filled.fill.is_exposed
        filled.write_to(100 * KIB)
        await exchange.received(0)
        assert (was_exposed, filled.fill.is_exposed) == (False, True)
        filled.finish()
        await task


# Side fetches: far past the frontier


async def test_a_part_far_ahead_is_fetched_aside_and_its_end_is_the_fills(desk: Desk) -> None:
    start = len(VAST) - 300 * KIB
    with desk.filling(VAST) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={start}-")
        task = begin(desk, exchange)
        filled.write_to(100 * KIB)
        await exchange.received(300 * KIB - HELD_BACK_BYTES)
        assert not task.done(), "the end is held back until the fill has verified it"
        filled.finish()
        await task
    assert (exchange.answer.status, exchange.answer.body) == (206, VAST[start:])
    assert desk.cache.side_ranges == [(start, len(VAST) - HELD_BACK_BYTES)]
    assert desk.cache.side_closed_count == 1


async def test_a_part_that_is_all_aside_waits_for_no_fill(desk: Desk) -> None:
    start = len(VAST) - 300 * KIB
    with desk.filling(VAST) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={start}-{start + 99}")
        task = begin(desk, exchange)
        filled.write_to(100 * KIB)
        await task
        assert filled.fill.outcome is None
        filled.finish()
    assert (exchange.answer.status, exchange.answer.body) == (206, VAST[start : start + 100])
    assert desk.cache.side_ranges == [(start, start + 100)]


async def test_a_side_fetch_that_breaks_is_carried_on_by_the_fill(desk: Desk) -> None:
    desk.cache.side_error = UNAVAILABLE
    start = len(VAST) - 300 * KIB
    with desk.filling(VAST) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={start}-")
        task = begin(desk, exchange)
        filled.write_to(100 * KIB)
        await exchange.received(desk.cache.side_piece_bytes)
        filled.finish()
        await task
    assert exchange.answer.body == VAST[start:]
    assert exchange.answer.is_whole


async def test_a_side_fetch_that_cannot_be_had_is_done_by_the_fill(desk: Desk) -> None:
    desk.cache.side_error = UNAVAILABLE
    desk.cache.side_piece_bytes = 0
    start = len(VAST) - 300 * KIB
    with desk.filling(VAST) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={start}-")
        task = begin(desk, exchange)
        filled.write_to(100 * KIB)
        await exchange.received(0)
        assert exchange.body == b""
        filled.finish()
        await task
    assert (exchange.answer.status, exchange.answer.body) == (206, VAST[start:])


async def test_a_client_that_leaves_ends_its_side_fetch(desk: Desk) -> None:
    start = len(VAST) - 300 * KIB
    with desk.filling(VAST) as filled:
        exchange = desk.exchange(path_of(filled), range=f"bytes={start}-")
        exchange.gone_after_bytes = 1
        task = begin(desk, exchange)
        filled.write_to(100 * KIB)
        with pytest.raises(ClientGone):
            await task
        assert desk.cache.side_closed_count == 1
        filled.finish()


# HEAD, and what a client has already


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (BlobHead(CacheStatus.HIT, 77, NOW - 3), "moorage; hit"),
        (BlobHead(CacheStatus.HIT, 77), "moorage; hit"),
        (BlobHead(CacheStatus.MISS, 77), "moorage; fwd=uri-miss; fwd-status=200"),
    ],
)
async def test_head_of_a_cold_blob_fetches_nothing(desk: Desk, found: BlobHead, told: str) -> None:
    digest = digest_of(b"cold")
    desk.cache.blobs[APP, digest] = found
    answer = await desk.ask(f"/v2/acme/app/blobs/{digest}", "HEAD", range="bytes=0-1")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == "77"
    assert answer.headers["docker-content-digest"] == digest
    assert answer.headers["cache-status"] == told
    assert ("age" in answer.headers) is (found.stored_at is not None)
    assert desk.cache.calls == ["head_blob"]


async def test_head_of_a_blob_whose_size_nobody_tells_is_still_yes(desk: Desk) -> None:
    digest = digest_of(b"cold")
    desk.cache.blobs[APP, digest] = BlobHead(CacheStatus.MISS, None)
    answer = await desk.ask(f"/v2/acme/app/blobs/{digest}", "HEAD")
    assert answer.status == 200
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_cold_blob_that_the_client_has_is_304_and_fetches_nothing(
    desk: Desk, method: str
) -> None:
    digest = digest_of(b"cold")
    desk.cache.blobs[APP, digest] = BlobHead(CacheStatus.MISS, 77)
    target = f"/v2/acme/app/blobs/{digest}"
    answer = await desk.ask(target, method, if_none_match=f'"{digest}"')
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{digest}"'
    assert desk.cache.calls == ["head_blob"]


async def test_a_tag_that_the_client_claims_does_not_make_an_unknown_blob_known(
    desk: Desk,
) -> None:
    digest = digest_of(b"unknown")
    target = f"/v2/acme/app/blobs/{digest}"
    answer = await desk.ask(target, if_none_match=f'"{digest}"')
    assert answer.status == 404
    assert b"BLOB_UNKNOWN" in answer.body
