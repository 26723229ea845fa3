"""The control socket: acts on a cache that is being served from."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.hot import Kind
from engine.layout import Layout
from engine.names import Tag
from engine.subject import TagSubject
from server import control
from server.control import open_control
from server.control_messages import (
    Changed,
    Failed,
    Pin,
    Purge,
    Purged,
    Quarantine,
    Quarantined,
    Reply,
    Running,
    Status,
    Unpin,
    decode_reply,
    encode,
    purge_of,
)
from server.control_socket import connect, listen
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.counted import make_counters
from tests.fakes.damage import blob_path, kept_in_quarantine
from tests.fakes.operating import operating
from tests.fakes.stocked import Upstreams, pull_image
from tests.fakes.upstream_content import Image
from tools.control_client import ActFailed, ask_server, find_server

pytestmark = pytest.mark.anyio

COUNTERS = make_counters(b"/v2/")


class Site:
    """A cache that takes commands."""

    def __init__(self, layout: Layout, cache: Cache, image: Image) -> None:
        self.layout = layout
        self.cache = cache
        self.image = image

    async def ask(self, line: bytes) -> Reply:
        """Say a line on a connection of its own."""
        sock = await asyncio.to_thread(connect, self.layout.control_path, 10.0)
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        writer.write(line)
        try:
            return decode_reply(await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    upstreams = Upstreams()
    layout = Layout(tmp_path)
    async with upstreams.cache(tmp_path) as cache:
        image = await pull_image(cache, upstreams, BUSYBOX, "1.35")
        async with (
            operating(cache, tmp_path, counters=COUNTERS) as (operator, _),
            open_control(operator, layout.control_path),
        ):
            yield Site(layout, cache, image)
    assert not layout.control_path.exists()


async def test_each_command_is_carried_out_and_answered(site: Site) -> None:
    glob = "docker.io/library/*:*"
    assert await site.ask(encode(Pin(glob))) == Changed(is_new=True)
    assert await site.ask(encode(Pin(glob))) == Changed(is_new=False)
    assert await site.ask(encode(Unpin(glob))) == Changed(is_new=True)
    running = await site.ask(encode(Status()))
    assert isinstance(running, Running)
    assert (running.pid, running.answers) == (os.getpid(), {"none": 1})
    assert running.limit_bytes > running.stored_bytes > 0
    dry = await site.ask(encode(purge_of(TagSubject(BUSYBOX, Tag("1.35")), is_dry_run=True)))
    wet = await site.ask(encode(purge_of(TagSubject(BUSYBOX, Tag("1.35")), is_dry_run=False)))
    assert isinstance(dry, Purged)
    assert isinstance(wet, Purged)
    assert dry.blobs == wet.blobs
    assert len(wet.blobs) == 4
    assert not blob_path(site.layout.root, site.image.manifest).exists()


async def test_quarantine_serves_no_byte_from_then_on(site: Site) -> None:
    cache, digest = site.cache, site.image.layers[0]
    content = (await cache.get_blob(BUSYBOX, digest)).content
    assert content is not None
    held = cache.open_file(content)
    reply = await site.ask(encode(Quarantine(digest, "for a test")))
    assert isinstance(reply, Quarantined)
    assert reply.path
    assert Path(reply.path).parent == site.layout.quarantine_directory
    assert kept_in_quarantine(site.layout.root) == [f"sha256-{digest.hex}"]
    assert cache.find(Kind.BLOB, BUSYBOX, digest) is None
    assert held.is_revoked
    held.release()
    assert len(await read_blob(cache, BUSYBOX, digest)) == content.size_bytes


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"not json\n",
        b'{"type": "reboot"}\n',
        b'{"type": "pin"}\n',
        encode(Purge()),
        encode(Purge(digest="sha256:0")),
        encode(Purge(upstream="docker.io", repository="../etc")),
        encode(Quarantine("../../etc/passwd", "")),
    ],
)
async def test_what_is_no_command_is_refused(site: Site, line: bytes) -> None:
    assert isinstance(await site.ask(line), Failed)


async def test_a_line_without_end_is_dropped_and_the_next_client_served(site: Site) -> None:
    with pytest.raises(ValueError, match="truncated"):
        await site.ask(b"x" * 200_000)
    assert isinstance(await site.ask(encode(Status())), Running)


async def test_a_client_that_says_nothing_is_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_PATIENCE_S", 0.01)
    sock = await asyncio.to_thread(connect, site.layout.control_path, 10.0)
    assert await asyncio.to_thread(sock.recv, 1) == b""
    sock.close()


async def test_the_socket_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        sock = listen(tmp_path / "control.sock")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
    sock.close()


async def test_a_path_may_be_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / ("longer" * 20) / "control.sock"
    path.parent.mkdir(parents=True)
    with listen(path) as sock, connect(path, 1.0) as client:
        client.sendall(b"hello")
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.recv(5) == b"hello"


async def test_what_a_dead_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        connect(path, 1.0)
    with listen(path), connect(path, 1.0):
        pass


async def test_without_a_socket_clients_are_served_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Upstreams().cache(tmp_path) as cache:
        path = tmp_path / "control.sock"
        path.mkdir()
        async with (
            operating(cache, tmp_path, counters=COUNTERS) as (operator, _),
            open_control(operator, path),
        ):
            assert await cache.list_repositories() == []
    assert f"no control socket path={path}" in caplog.text
    assert path.is_dir()


async def test_stopping_breaks_off_what_is_under_way(tmp_path: Path) -> None:
    async with Upstreams().cache(tmp_path) as cache:
        begun = asyncio.Event()

        async def purge(*_: object, **__: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        cache.acts.purge = purge  # type: ignore[method-assign,assignment]  # never ends
        path = Layout(tmp_path).control_path
        async with (
            operating(cache, tmp_path, counters=COUNTERS) as (operator, _),
            open_control(operator, path),
        ):
            sock = await asyncio.to_thread(connect, path, 10.0)
            sock.sendall(encode(Purge(upstream="docker.io")))
            await begun.wait()
        assert await asyncio.to_thread(sock.recv, 1) == b""
        sock.close()


async def test_a_tool_finds_no_server_or_says_that_it_died(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert find_server(layout) is None
    listen(layout.control_path).close()
    assert find_server(layout) is None
    with listen(layout.control_path) as sock:
        sock.setblocking(True)

        def hang_up() -> None:
            accepted, _ = sock.accept()
            accepted.close()

        hanging = asyncio.create_task(asyncio.to_thread(hang_up))
        with pytest.raises(ActFailed, match="ended before it answered"):
            await asyncio.to_thread(ask_server, layout, Status())
        await hanging
