"""Patience with clients, and how many of them there may be."""

import asyncio
import resource
from pathlib import Path

import pytest

from server.limits import Limits, Phase, Watch, derive_max_connections, raise_open_files
from tests.fakes.transport import Client, open_site, pattern

LIMITS = Limits(head_s=10, idle_s=75, stall_s=60, linger_s=5)
# Short, but only as long as it takes: no test depends on how long that is.
QUICK = Limits(head_s=0.1, idle_s=0.1, stall_s=0.1, linger_s=0.1)
NEVER = 3600.0


def test_patience_ends_for_who_does_not_get_on() -> None:
    watch = Watch(0)
    assert not watch.is_overdue(Phase.HEAD, 1, 5, LIMITS)  # seen there for the first time
    assert not watch.is_overdue(Phase.HEAD, 1, 14.9, LIMITS)
    assert watch.is_overdue(Phase.HEAD, 1, 15, LIMITS)


def test_whoever_gets_on_is_waited_for() -> None:
    watch = Watch(0)
    for second in range(0, 6000, 50):
        assert not watch.is_overdue(Phase.SENDING, second, second, LIMITS)


def test_a_change_of_phase_starts_anew() -> None:
    watch = Watch(0)
    assert not watch.is_overdue(Phase.IDLE, 0, 74, LIMITS)
    assert not watch.is_overdue(Phase.HEAD, 0, 76, LIMITS)
    assert not watch.is_overdue(Phase.IDLE, 0, 80, LIMITS)
    assert watch.is_overdue(Phase.IDLE, 0, 155, LIMITS)


def test_nobody_is_overdue_while_we_are_at_work() -> None:
    watch = Watch(0)
    assert not watch.is_overdue(Phase.WORKING, 0, 0, LIMITS)
    assert not watch.is_overdue(Phase.WORKING, 0, 1e9, LIMITS)


def test_the_sweep_is_finer_than_every_limit() -> None:
    assert Limits(head_s=3, idle_s=8, stall_s=4, linger_s=2).sweep_s == 0.5


@pytest.mark.parametrize(
    ("open_files", "expected"),
    [
        (64, 16),
        (256, 42),
        (1024, 170),
        (4096, 682),
        (20_000, 5984),
        (1_048_576, 100_000),
        (10**9, 100_000),
    ],
)
def test_connections_follow_from_open_files(open_files: int, expected: int) -> None:
    assert derive_max_connections(open_files) == expected


@pytest.mark.parametrize(("hard", "is_warned"), [(1024, True), (65_536, False)])
def test_a_low_limit_is_warned_of(
    hard: int,
    is_warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    assert raise_open_files() == hard
    assert ("limit=1024 connections=170 action=raise the hard limit" in caplog.text) is is_warned


def test_open_files_are_raised_to_what_is_allowed() -> None:
    first = raise_open_files()
    assert first == raise_open_files()
    assert first > 0


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [b"", b"GET /hit/1 HT", b"\r\n", b"GET /hit/1 HTTP/1.1\r\n\r\n"])
async def test_slow_and_idle_clients_are_cut(tmp_path: Path, sent: bytes) -> None:
    async with open_site(tmp_path, QUICK) as site:
        client = await site.connect()
        client.send(sent)
        await client.read_end()  # the last one: of the lingering after a refusal
        await site.endpoint.wait_empty()


async def drip(client: Client) -> None:
    while not client.writer.transport.is_closing():
        client.send(b"A: b\r\n")
        await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_client_that_drips_its_head_is_cut(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(head_s=0.1, idle_s=NEVER, stall_s=NEVER)) as site:
        client = await site.connect()
        client.send(b"GET /hit/1 HTTP/1.1\r\nHost: x\r\n")
        dripping = asyncio.create_task(drip(client))
        await site.endpoint.wait_empty()
        dripping.cancel()
        assert site.records.all == []


@pytest.mark.anyio
@pytest.mark.parametrize("target", ["/file/60000000", "/spans/60000000", "/task/60000000"])
async def test_client_that_does_not_read_is_cut(tmp_path: Path, target: str) -> None:
    async with open_site(tmp_path, Limits(stall_s=0.2, head_s=NEVER, idle_s=NEVER)) as site:
        client = await site.connect(receive_buffer_bytes=4096)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a Transport
        client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await site.endpoint.wait_empty()
        assert "SENDING" in site.records.all[0].cause


@pytest.mark.anyio
async def test_handler_may_take_longer_than_any_patience(tmp_path: Path) -> None:
    async with open_site(tmp_path, QUICK) as site:
        client = await site.connect()
        client.send(b"GET /late/5 HTTP/1.1\r\nHost: x\r\n\r\n")
        await site.handler.started.wait()
        idle = await site.connect()
        await idle.read_end()  # so the limits have run out
        site.handler.release.set()
        assert (await client.read()).body == pattern(5)


class FakePeer:
    """A connection as the endpoint sees it, at a phase since a time."""

    mark = 0

    def __init__(self, phase: Phase, since: float) -> None:
        self.watch = Watch(since)
        self.watch.is_overdue(phase, 0, since, LIMITS)
        self.phase = phase
        self.cut_cause = ""

    def look(self) -> tuple[Phase, int]:
        return self.phase, self.mark

    def wind_up(self) -> None:
        raise AssertionError

    def cut(self, cause: str) -> None:
        self.cut_cause = cause


@pytest.mark.anyio
async def test_longest_idle_connections_make_room(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(max_connections=128)) as site:
        now = site.endpoint.loop.time()
        busy = [FakePeer(Phase.WORKING, now - 1000) for _ in range(64)]
        idle = [FakePeer(Phase.IDLE, now - age) for age in range(64)]
        for peer in busy + idle:
            assert site.endpoint.admit(peer)
        last = FakePeer(Phase.IDLE, now)
        assert site.endpoint.admit(last)
        for peer in [*busy, *idle, last]:
            site.endpoint.discard(peer)
        assert [peer for peer in busy + idle if peer.cut_cause] == idle[-2:]


@pytest.mark.anyio
async def test_what_was_in_use_since_the_sweep_is_not_the_longest_idle(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(max_connections=2)) as site:
        now = site.endpoint.loop.time()
        used, unused = FakePeer(Phase.IDLE, now - 60), FakePeer(Phase.IDLE, now - 50)
        last = FakePeer(Phase.IDLE, now)
        used.mark = 1
        for peer in (used, unused, last):
            assert site.endpoint.admit(peer)
        for peer in (used, unused, last):
            site.endpoint.discard(peer)
        assert (used.cut_cause, unused.cut_cause) == ("", "room for another connection")


@pytest.mark.anyio
async def test_idle_connection_makes_room_for_a_new_one(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(max_connections=1)) as site:
        first = await site.connect()
        await first.get("/hit/1")
        second = await site.connect()
        assert (await second.get("/hit/3")).body == pattern(3)
        assert await first.read_end() == b""


@pytest.mark.anyio
async def test_a_full_table_without_idle_ones_is_not_searched_for_each_connection(
    tmp_path: Path,
) -> None:
    class CountingPeer(FakePeer):
        look_count = 0

        def look(self) -> tuple[Phase, int]:
            self.look_count += 1
            return super().look()

    async with open_site(tmp_path, Limits(max_connections=1)) as site:
        busy = CountingPeer(Phase.WORKING, site.endpoint.loop.time())
        assert site.endpoint.admit(busy)
        for _ in range(10):
            assert not site.endpoint.admit(FakePeer(Phase.IDLE, 0.0))
        site.endpoint.discard(busy)
        assert busy.look_count < 10


@pytest.mark.anyio
async def test_connection_past_the_limit_is_refused_while_all_are_busy(tmp_path: Path) -> None:
    async with open_site(tmp_path, Limits(max_connections=1)) as site:
        busy = await site.connect()
        busy.send(b"GET /late/5 HTTP/1.1\r\nHost: x\r\n\r\n")
        await site.handler.started.wait()
        refused = await site.connect()
        with pytest.raises(ConnectionResetError):
            await refused.read_end()
        site.handler.release.set()
        assert (await busy.read()).body == pattern(5)
