"""What leaves again without the API being asked is what the API would say, and is counted alike."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from engine.cache import Cache
from engine.hot import Kind
from engine.settings import EngineSettings
from server import repeats
from server.api import Api
from server.endpoint import Endpoint
from server.exchange import Exchange
from server.protocol import Connection
from server.settings import ServerSettings
from tests.fakes.caches import BUSYBOX, QUICK, read_blob
from tests.fakes.memory_upstream import NO_SCRUB, SETTINGS, MemoryUpstream, settle_fills
from tests.fakes.transport import MemoryTransport, Records
from tests.fakes.upstream_content import digest_of, make_bytes

pytestmark = pytest.mark.anyio

SMALL = make_bytes(1_000, seed=1)
LARGE = make_bytes(50_000, seed=2)
HUGE = make_bytes(12_000_000, seed=3)


@dataclass(slots=True)
class Desk:
    """The API, asked through connections of an endpoint; `asked` counts what reaches the API."""

    cache: Cache
    api: Api
    records: Records = field(default_factory=Records)
    asked: list[bytes] = field(default_factory=list)

    def respond_now(self, exchange: Exchange) -> bool:
        self.asked.append(exchange.target)
        return self.api.respond_now(exchange)

    async def respond(self, exchange: Exchange) -> None:
        await self.api.respond(exchange)


@dataclass(slots=True)
class Site:
    """An endpoint whose second does not end unless a test says so."""

    endpoint: Endpoint
    desk: Desk
    cache: Cache
    transports: list[MemoryTransport] = field(default_factory=list)

    def connect(self) -> tuple[Connection, MemoryTransport]:
        connection = Connection(self.endpoint)
        self.transports.append(MemoryTransport(connection))
        return connection, self.transports[-1]

    def ask(self, head: bytes) -> bytes:
        """Ask on a new connection and give what came at once."""
        connection, transport = self.connect()
        connection.data_received(head)
        return transport.read_output()

    def warm_up(self, head: bytes) -> bytes:
        """Ask until the next answer is a repeated one: the head is read, then known."""
        self.ask(head)
        answer = self.ask(head)
        self.endpoint.repeats._until = math.inf
        self.desk.asked.clear()
        self.desk.records.all.clear()
        return answer


@asynccontextmanager
async def open_site(
    path: Path, blobs: tuple[bytes, ...] = (SMALL, LARGE), *, is_alike: bool = True
) -> AsyncIterator[Site]:
    """Serve `blobs`, which are stored."""
    upstream = MemoryUpstream()
    for blob in blobs:
        upstream.content.add_blob(BUSYBOX.repository, blob)
    settings = EngineSettings(path, (SETTINGS,), verify=NO_SCRUB)
    cache = await Cache.open(settings, connect=upstream.connect, patience=QUICK)
    desk = Desk(cache, Api(cache, ServerSettings(settings)))
    endpoint = Endpoint(desk, observers=(desk.records,), is_alike=is_alike)
    try:
        for blob in blobs:
            await read_blob(cache, BUSYBOX, digest_of(blob))
        await settle_fills(cache)
        for blob in blobs:
            await read_blob(cache, BUSYBOX, digest_of(blob))
        site = Site(endpoint, desk, cache)
        yield site
        for transport in site.transports:
            transport.finish()
    finally:
        await endpoint.drain(0)
        await cache.aclose()


def get(blob: bytes, *lines: str, method: str = "GET") -> bytes:
    fields = "".join(f"{line}\r\n" for line in ("Host: x", *lines))
    path = f"/v2/{BUSYBOX.repository}/blobs/{digest_of(blob)}"
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode()


HEADS = {
    "small": get(SMALL),
    "large": get(LARGE),
    "part": get(LARGE, "Range: bytes=10-40009"),
    "not modified": get(SMALL, f'If-None-Match: "{digest_of(SMALL)}"'),
    "head": get(LARGE, method="HEAD"),
    "closing": get(SMALL, "Connection: close"),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_repeated_answer_is_the_same_and_counted_alike(tmp_path: Path, name: str) -> None:
    async with open_site(tmp_path) as site:
        expected = site.warm_up(HEADS[name])
        for _ in range(3):
            assert site.ask(HEADS[name]) == expected
        assert site.desk.asked == []
        assert [over.sent_bytes for over in site.desk.records.all] == [len(expected)] * 3
        assert {over.status for over in site.desk.records.all} == {int(expected[9:12])}


async def test_a_failure_is_not_repeated_for_it_bears_the_name_of_its_request(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path) as site:
        head = get(LARGE, "Range: bytes=50000-")
        answers = [site.warm_up(head), site.ask(head), site.ask(head)]
        assert all(answer.startswith(b"HTTP/1.1 416 ") for answer in answers)
        assert len({answer.partition(b"X-Request-Id: ")[2][:15] for answer in answers}) == 3


async def test_a_connection_stays_or_ends_as_it_would_have_the_first_time(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        for name, is_last in (("small", False), ("closing", True)):
            site.warm_up(HEADS[name])
            connection, transport = site.connect()
            connection.data_received(HEADS[name])
            assert transport.is_closing() is is_last


async def test_each_client_of_a_repeated_answer_is_named(tmp_path: Path) -> None:
    remotes: list[str] = []

    class Remotes:
        def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
            remotes.append(exchange.remote)

    async with open_site(tmp_path) as site:
        site.warm_up(HEADS["small"])
        site.endpoint.observers = (Remotes(),)
        for remote in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            connection, _ = site.connect()
            connection.remote = remote
            connection.data_received(HEADS["small"])
        assert remotes == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


async def test_a_head_that_differs_in_anything_but_its_trace_is_not_a_repetition(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path) as site:
        expected = site.warm_up(HEADS["large"])
        trace = "Traceparent: 00-" + "0123456789abcdef" * 2 + "-0123456789abcdef-01"
        assert site.ask(get(LARGE, trace)) == expected
        assert site.desk.asked == []
        assert b"206 Partial" in site.ask(get(LARGE, "Range: bytes=0-0"))
        assert b"304 Not" in site.ask(get(LARGE, f"If-None-Match: {digest_of(LARGE)}"))
        assert len(site.desk.asked) == 2


Act = Callable[[Cache], Awaitable[object]]


async def hide(cache: Cache) -> None:
    """As eviction does it."""
    cache._store.hide(digest_of(SMALL))


async def hide_repository(cache: Cache) -> None:
    """As a purge does it."""
    cache._store.hide_repositories(lambda location: location == BUSYBOX)


async def replace_entry(cache: Cache) -> None:
    """As two that find the same in the index do it."""
    known = await cache._store.find(Kind.BLOB, BUSYBOX, digest_of(SMALL))
    cache._store.hide(digest_of(SMALL))
    assert cache._store.find_permitted(Kind.BLOB, BUSYBOX, known) is not None


async def quarantine(cache: Cache) -> None:
    await cache.acts.quarantine(digest_of(SMALL), "a test")


@pytest.mark.parametrize("act", [hide, hide_repository, replace_entry, quarantine])
async def test_content_that_is_taken_out_of_service_is_not_repeated(
    tmp_path: Path, act: Act
) -> None:
    async with open_site(tmp_path) as site:
        site.warm_up(HEADS["small"])
        await act(site.cache)
        site.ask(HEADS["small"])
        assert len(site.desk.asked) == 1


async def test_once_a_second_the_cache_is_asked_and_notes_the_use(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.warm_up(HEADS["small"])
        await site.cache._store.flush_uses()
        site.ask(HEADS["small"])
        assert site.cache._store.touch.used_at(digest_of(SMALL)) is None
        site.endpoint.repeats._until = 0.0
        site.ask(HEADS["small"])
        assert site.cache._store.touch.used_at(digest_of(SMALL)) is not None
        assert len(site.desk.asked) == 1


async def test_a_second_ends_when_the_clock_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "time", lambda: 1_700_000_000.75)
    async with open_site(tmp_path) as site:
        site.ask(HEADS["small"])
        site.endpoint.repeats._until = 0.0
        before = monotonic()
        site.ask(HEADS["small"])
        after = monotonic()
        assert before + 0.25 <= site.endpoint.repeats._until <= after + 0.25


async def test_a_file_that_was_closed_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        expected = site.warm_up(HEADS["large"])
        hot = site.cache._store._hot
        hot._files.pop(digest_of(LARGE)).release()  # as beyond the bound on open files
        assert site.ask(HEADS["large"]) == expected
        assert len(site.desk.asked) == 1


async def test_headers_that_are_configured_anew_are_in_the_next_answer(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.warm_up(HEADS["small"])
        site.endpoint.adopt((("X-Team", "ci"),))
        assert b"\r\nX-Team: ci\r\n" in site.ask(HEADS["small"])


async def test_a_slow_reader_of_a_repeated_answer_gets_all_of_it(tmp_path: Path) -> None:
    async with open_site(tmp_path, (SMALL, HUGE)) as site:
        site.warm_up(get(HUGE))
        site.desk.records.all.clear()
        connection, transport = site.connect()
        connection.data_received(get(HUGE))
        assert site.desk.asked == []
        received = transport.read_output()
        while len(received) < len(HUGE) or not site.desk.records.all:
            await asyncio.sleep(0)
            received += transport.read_output()
        assert received.endswith(HUGE)
        (over,) = site.desk.records.all
        assert (over.sent_bytes, over.cause) == (len(received), "")
        connection.data_received(HEADS["small"])  # the connection lives on
        assert transport.read_output().endswith(SMALL)


async def test_a_client_that_goes_is_no_fault_of_the_next_one(tmp_path: Path) -> None:
    async with open_site(tmp_path, (SMALL, HUGE)) as site:
        site.warm_up(get(HUGE))
        for transport in site.transports:
            transport.finish()
        site.transports.clear()
        site.desk.records.all.clear()
        for _ in range(2):
            connection, transport = site.connect()
            connection.data_received(get(HUGE))
            transport.finish()
        causes = [over.cause for over in site.desk.records.all]
        assert causes == ["the client has gone"] * 2
        assert all(r.exchange.cause == "" for r in site.endpoint.repeats._all.values())


async def test_a_handler_that_judges_clients_is_always_asked(tmp_path: Path) -> None:
    async with open_site(tmp_path, is_alike=False) as site:
        site.warm_up(HEADS["small"])
        for _ in range(3):
            site.ask(HEADS["small"])
        assert len(site.desk.asked) == 3


async def test_heads_with_credentials_are_always_looked_at(tmp_path: Path) -> None:
    head = get(SMALL, "Authorization: Basic eDp5")
    async with open_site(tmp_path) as site:
        site.warm_up(head)
        site.ask(head)
        assert len(site.desk.asked) == 1


async def test_nothing_is_repeated_while_the_server_drains(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.warm_up(HEADS["small"])
        connection, transport = site.connect()
        site.endpoint.is_draining = True
        connection.data_received(HEADS["small"])
        assert b"Connection: close" in transport.read_output()


async def test_the_answers_of_a_second_are_bounded_and_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "MAX_ANSWERS", 2)
    monkeypatch.setattr(repeats, "MAX_BYTES", 5_500)
    async with open_site(tmp_path) as site:
        table = site.endpoint.repeats
        for number in range(4):
            site.warm_up(get(SMALL, f"X: {number}"))
        assert len(table._all) == 2
        monkeypatch.setattr(repeats, "MAX_ANSWERS", 100)
        for number in range(4, 10):
            site.warm_up(get(SMALL, f"X: {number}"))
        assert len(table._all) == 3
        table._until = 0.0
        table.expire(1.0)
        assert (table._all, table._bytes) == ({}, 0)
