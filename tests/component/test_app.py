"""The server as a process: start, signals, drain, and what it says when it cannot start."""

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.transport import Client, pattern

pytestmark = [pytest.mark.system, pytest.mark.anyio]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop under test is the child's, which is always uvloop."""
    return "asyncio", {"use_uvloop": False}


@dataclass
class Child:
    """A server process. `lines` is what it has said on stderr so far."""

    process: asyncio.subprocess.Process
    lines: list[str]
    clients: list[Client]

    async def wait_line(self, part: str) -> str:
        """Read stderr up to a line with `part`."""
        for line in self.lines:
            if part in line:
                return line
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.lines.append(line)
            if part in line:
                return line
        raise AssertionError(f"no {part!r} in {self.lines}")

    async def find_port(self, event: str = " listening") -> int:
        return int((await self.wait_line(f"{event} addr=")).rpartition(":")[2])

    async def connect(self, host: str = "127.0.0.1", port: int | None = None) -> Client:
        port = await self.find_port() if port is None else port
        self.clients.append(Client(*await asyncio.open_connection(host, port)))
        return self.clients[-1]

    async def connect_unix(self, path: Path) -> Client:
        self.clients.append(Client(*await asyncio.open_unix_connection(str(path))))
        return self.clients[-1]

    async def close_clients(self) -> None:
        for client in self.clients:
            await client.aclose()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def finish(self) -> tuple[int, str, str]:
        """Wait for the end; give exit code, stdout and the whole of stderr."""
        out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), "".join(self.lines) + err.decode()


@asynccontextmanager
async def start(data: Path, **options: object) -> AsyncIterator[Child]:
    arguments = {"data": str(data), "listen": ["127.0.0.1:0"], **options}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.app_child", json.dumps(arguments),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    child = Child(process, [], [])
    try:
        yield child
    finally:
        await child.close_clients()
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_it_listens_on_every_address_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "moorage.sock"
    listen = ["127.0.0.1:0", "127.0.0.2:0", f"unix:{path}", ":0"]
    async with start(tmp_path, listen=listen) as child:
        for address in ("127.0.0.1:", "127.0.0.2:", f"unix:{path}"):
            await child.wait_line(f" listening addr={address}")
        everywhere = await child.wait_line(" listening addr=[::]:")
        assert (await (await child.connect_unix(path)).get("/hit/3")).body == pattern(3)
        port = int(everywhere.rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            assert (await (await child.connect(host, port)).get("/hit/3")).body == pattern(3)
        await child.close_clients()
        child.signal(signal.SIGTERM)
        code, out, err = await child.finish()
    assert code == 0
    assert not path.exists()
    assert "warn a warning of the configuration" in err
    assert "route upstream=docker.io url=http://127.0.0.1:9 namespaces=docker.io" in err
    assert "secret" not in err
    assert [line.partition("remote=")[2].split()[0] for line in out.splitlines()] == [
        "unix", "127.0.0.1", "::1"]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_connections_are_closed_and_it_ends_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with start(tmp_path) as child:
        client = await child.connect()
        assert (await client.get("/hit/3")).fields["x-content-type-options"] == "nosniff"
        child.signal(number)
        assert await client.read_end() == b""
        code, out, err = await child.finish()
        assert code == 0
        assert 'path="/hit/3" status=200' in out
        assert "Traceback" not in err
        await client.aclose()


async def test_a_response_under_way_is_finished_and_nobody_else_gets_in(tmp_path: Path) -> None:
    length = 30_000_000
    async with start(tmp_path) as child:
        port = await child.find_port()
        client = await child.connect()
        client.send(f"GET /file/{length} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await client.reader.readuntil(b"\r\n\r\n")
        child.signal(signal.SIGTERM)
        await child.wait_line("draining")
        with pytest.raises(ConnectionRefusedError):
            await child.connect(port=port)
        assert await client.reader.readexactly(length) == pattern(length)
        assert await client.read_end() == b""
        await client.aclose()
        assert (await child.finish())[0] == 0


async def test_a_request_that_is_waiting_is_answered_and_told_of_the_end(tmp_path: Path) -> None:
    async with start(tmp_path) as child:
        client = await child.connect()
        client.send(b"GET /hit/3 HTTP/1.1\r\nHost: x\r\n")  # its head is incomplete
        other = await child.connect()
        await other.get("/hit/1")  # so the first one's bytes have been seen
        child.signal(signal.SIGTERM)
        assert await other.read_end() == b""
        client.send(b"\r\n")
        response = await client.read()
        assert response.body == pattern(3)
        assert response.fields["connection"] == "close"
        await child.close_clients()
        assert (await child.finish())[0] == 0


@pytest.mark.parametrize("timeout_s", [0, 0.2])
async def test_the_drain_ends_and_what_is_left_is_cut(tmp_path: Path, timeout_s: float) -> None:
    async with start(tmp_path, draintimeout_s=timeout_s) as child:
        client = await child.connect()
        client.send(b"GET /half/100 HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        child.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            await client.read_end()
        code, out, _ = await child.finish()
        assert code == 0
        assert 'cause="the server stops"' in out


async def test_a_second_signal_cuts(tmp_path: Path) -> None:
    async with start(tmp_path, draintimeout_s=3600) as child:
        client = await child.connect()
        client.send(b"GET /half/100 HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        child.signal(signal.SIGTERM)
        await child.wait_line("draining")
        child.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            await client.read_end()
        assert (await child.finish())[0] == 0


async def test_hangup_does_not_kill(tmp_path: Path) -> None:
    async with start(tmp_path) as child:
        client = await child.connect()
        await client.get("/hit/1")
        child.signal(signal.SIGHUP)
        await child.wait_line("SIGHUP")
        assert (await client.get("/hit/3")).body == pattern(3)
        await client.aclose()


async def test_clients_that_go_away_do_not_kill(tmp_path: Path) -> None:
    async with start(tmp_path) as child:
        for target in ("/file/20000000", "/task/20000000", "/spans/20000000"):
            client = await child.connect()
            client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await client.reader.readexactly(100)
            client.reset()
        client = await child.connect()
        assert (await client.get("/hit/3")).body == pattern(3)
        await client.aclose()
        child.signal(signal.SIGTERM)
        code, _, err = await child.finish()
        assert code == 0
        assert "error" not in err


async def test_debug_port_tells_health(tmp_path: Path) -> None:
    async with start(tmp_path, debug=["127.0.0.1:0"]) as child:
        await child.find_port()
        client = await child.connect(port=await child.find_port("debug port open"))
        assert (await client.get("/healthz")).body == b"ok\n"
        assert (await client.get("/readyz")).body == b"ok\n"
        assert (await client.get("/readyz", method="HEAD")).status == 200
        assert (await client.get("/nothing")).status == 404
        await client.aclose()
        child.signal(signal.SIGTERM)
        assert (await child.finish())[1] == ""  # no access lines of the debug port


async def assert_start_fails(data: Path, **options: object) -> str:
    async with start(data, **options) as child:
        code, out, err = await child.finish()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    failure = [line for line in err.splitlines() if " error " in line]
    assert len(failure) == 1
    return failure[0]


async def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failure = await assert_start_fails(tmp_path, listen=["127.0.0.1:0", address])
    assert f"start failed: cannot listen on {address}: address already in use" in failure


async def test_an_address_that_is_not_here_is_said_so(tmp_path: Path) -> None:
    failure = await assert_start_fails(tmp_path, listen=["192.0.2.1:0"])
    assert "cannot listen on 192.0.2.1:0: cannot assign requested address" in failure


async def test_a_name_without_address_is_said_so(tmp_path: Path) -> None:
    failure = await assert_start_fails(tmp_path, listen=["no.such.host.invalid:0"])
    assert re.search(r"cannot listen on no\.such\.host\.invalid:0: .+", failure)


async def test_a_unix_socket_in_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "moorage.sock"
    async with start(tmp_path, listen=[f"unix:{path}"]) as child:
        await child.wait_line(" listening addr=unix:")
        failure = await assert_start_fails(tmp_path, listen=[f"unix:{path}"])
        assert f"cannot listen on unix:{path}: address already in use" in failure
        assert (await (await child.connect_unix(path)).get("/hit/3")).body == pattern(3)


async def test_a_unix_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "moorage.sock"
    async with start(tmp_path, listen=[f"unix:{path}"]) as first:
        await first.wait_line(" listening addr=unix:")
        first.signal(signal.SIGKILL)
        await first.finish()
    assert path.is_socket()
    async with start(tmp_path, listen=[f"unix:{path}"]) as second:
        await second.wait_line(" listening addr=unix:")
        assert (await (await second.connect_unix(path)).get("/hit/3")).body == pattern(3)


async def test_a_file_in_a_unix_sockets_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("mine")
    failure = await assert_start_fails(tmp_path, listen=[f"unix:{path}"])
    assert "address already in use" in failure
    assert path.read_text() == "mine"


async def test_the_api_is_served_from_a_cache(tmp_path: Path) -> None:
    async with start(tmp_path / "data", is_scripted=False) as child:
        client = await child.connect()
        assert (await client.get("/v2/")).status == 200
        failure = await assert_start_fails(tmp_path / "data", is_scripted=False)
        assert f"pid {child.process.pid}" in failure
        await client.aclose()
        child.signal(signal.SIGTERM)
        assert (await child.finish())[0] == 0


async def test_a_second_server_is_told_who_has_the_directory_and_not_who_has_its_ports(
    tmp_path: Path,
) -> None:
    async with start(tmp_path / "data", is_scripted=False, debug=["127.0.0.1:0"]) as child:
        port = await child.find_port("debug port open")
        client = await child.connect()
        failure = await assert_start_fails(
            tmp_path / "data", is_scripted=False, debug=[f"127.0.0.1:{port}"]
        )
        assert f"pid {child.process.pid}" in failure
        assert str(port) not in failure
        await client.aclose()
        child.signal(signal.SIGTERM)
        assert (await child.finish())[0] == 0
