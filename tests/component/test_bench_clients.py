"""The clients of a benchmark notice every answer that is not what it should be."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import xxhash

from tools.bench_model import Fetch
from tools.bench_pace import Pace
from tools.bench_pace import run as run_pace
from tools.bench_process import ChildFailed
from tools.bench_pull import Plan, PullFailed, fetch, run_plan
from tools.bench_relay import Relay, TokenBucket
from tools.bench_run import judge
from tools.bench_slow import Crowd, connect, read_slowly
from tools.bench_wrk import Load, WrkResult, parse_result

BODY = bytes(range(256)) * 1_000


class Handler(BaseHTTPRequestHandler):
    """`/whole`, `/wrong` (one bit), `/short` (cut), `/missing`; keeps connections."""

    protocol_version = "HTTP/1.1"
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        body = BODY[:-1] + b"?" if self.path == "/wrong" else BODY
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/short" else body)
        self.close_connection |= self.path == "/short"

    def do_HEAD(self) -> None:
        self.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as an open loop makes."""

    request_queue_size = 128


@contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    """Serve on loopback; give the address, and the paths that were asked for."""
    Handler.paths = []
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            host, port = server.server_address[:2]
            yield f"{host!s}:{port}", Handler.paths
        finally:
            server.shutdown()
            thread.join()


def asked(path: str) -> Fetch:
    return Fetch(path, len(BODY), xxhash.xxh3_128_hexdigest(BODY))


def test_a_whole_body_is_accepted() -> None:
    with serving() as (address, _):
        assert fetch(address, asked("/whole")) > 0


@pytest.mark.parametrize("path", ["/wrong", "/short", "/missing"])
def test_what_is_not_the_body_is_a_failure(path: str) -> None:
    with serving() as (address, _), pytest.raises(PullFailed, match=path):
        fetch(address, asked(path))


def test_nobody_there_is_a_failure() -> None:
    with serving() as (address, _):
        pass
    with pytest.raises(PullFailed):
        fetch(address, asked("/whole"))


def test_a_plan_counts_what_came_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    stages = [[asked("/whole")], [asked("/whole"), asked("/wrong"), asked("/whole")]]
    with serving() as (address, paths):
        found = run_plan(Plan(address, [stages, stages]))
    assert (found.request_count, found.failed_count) == (8, 2)
    assert found.body_bytes == 6 * len(BODY)
    assert paths.count("/wrong") == 2
    assert "/wrong" in capsys.readouterr().err


def test_a_stage_begins_when_the_one_before_has_ended() -> None:
    with serving() as (address, paths):
        run_plan(Plan(address, [[[asked("/whole?1")], [asked("/whole?2")], [asked("/whole?3")]]]))
    assert paths == ["/whole?1", "/whole?2", "/whole?3"]


@pytest.mark.parametrize(("path", "is_right"), [("/whole", True), ("/missing", False)])
def test_an_open_loop_asks_at_its_rate_and_counts_failures(*, path: str, is_right: bool) -> None:
    with serving() as (address, paths):
        found = asyncio.run(run_pace(Pace(address, path, len(BODY), rate=100, seconds=0.2)))
    assert found.request_count == len(paths) > 0
    assert found.failed_count == (0 if is_right else found.request_count)
    assert 0 < found.p50_s <= found.p99_s


def test_an_open_loop_of_heads_expects_no_bodies() -> None:
    with serving() as (address, paths):
        pace = Pace(address, "/whole", len(BODY), rate=100, seconds=0.2, method="HEAD")
        found = asyncio.run(run_pace(pace))
    assert found.request_count == len(paths) > 0
    assert found.failed_count == 0


def test_slow_readers_that_are_cut_off_are_counted() -> None:
    with serving() as (address, _):
        crowd = Crowd(address, "/short", 3, 0.1)
        socks = [connect(crowd) for _ in range(crowd.count)]
        try:
            # A read takes 4 KiB: the rest of 125 KiB is still there after one turn.
            assert read_slowly(socks, 0.1) == 0
            for sock in socks[:2]:
                sock.shutdown(2)
                while sock.recv(2**20):
                    pass
            assert read_slowly(socks, 0.1) == 2
        finally:
            for sock in socks:
                sock.close()


def test_a_relay_passes_the_bytes_on() -> None:
    async def pull(address: str) -> float:
        host, _, port = address.rpartition(":")
        relay = Relay(host, int(port), TokenBucket(1e9, 1e6))
        server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
        near = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            return await asyncio.to_thread(fetch, near, asked("/whole"))

    with serving() as (address, _):
        assert asyncio.run(pull(address)) > 0


def test_the_line_of_wrk_is_found_among_its_own() -> None:
    line = '{"request_count":5,"received_bytes":9,"duration_us":1,"p50_us":2,"p99_us":3,'
    found = parse_result(f'Running 1s test\n\nBENCH {line}"failed_count":4}}\n')
    assert found == WrkResult(5, 9, 1, 2, 3, 4)
    with pytest.raises(ChildFailed, match="unable to connect"):
        parse_result("", "unable to connect")


@pytest.mark.parametrize(
    ("received_bytes", "failed_count"), [(110_000, 0), (99_999, 100), (1_000_000, 100)]
)
def test_bytes_that_cannot_be_the_bodies_fail_all(received_bytes: int, failed_count: int) -> None:
    found = WrkResult(100, received_bytes, 10**6, 1, 1, 0)
    assert judge(found, Load("/", 2), 1_000).failed_count == failed_count
