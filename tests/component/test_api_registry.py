"""The whole house on loopback: scripted upstream, cache, API and connections; a client that looks.

What the fakes of the other modules assume of cache and transport is asked of the real ones here.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from engine.cache import Cache
from engine.fill import HELD_BACK_BYTES
from engine.settings import EngineSettings
from server.api import Api
from server.endpoint import Endpoint
from server.protocol import Connection
from server.settings import ServerSettings
from server.side import NEAR_BYTES
from tests.fakes.caches import QUICK
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream

pytestmark = pytest.mark.anyio

KIB = 1024
LAYER = os.urandom(700 * KIB)


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class House:
    """A mirror of `upstream`, and a client of it."""

    def __init__(self, upstream: ScriptedUpstream, client: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.client = client

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, path, headers=named) as response:
            return Reply(response.status, response.headers, await response.read())

    async def ask_until_hit(self, path: str) -> Reply:
        """Ask again while the fill, whose bytes are released already, is being committed."""
        async with asyncio.timeout(10):
            while (reply := await self.ask(path)).headers["Cache-Status"] != "moorage; hit":
                pass
        return reply


@asynccontextmanager
async def open_house(directory: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        settings = EngineSettings(directory, (upstream.settings(),))
        cache = await Cache.open(settings, patience=QUICK)
        stack.push_async_callback(cache.aclose)
        endpoint = Endpoint(Api(cache, ServerSettings(settings)))
        stack.push_async_callback(endpoint.drain, 0)
        server = await endpoint.loop.create_server(lambda: Connection(endpoint), "127.0.0.1", 0)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        client = aiohttp.ClientSession(f"http://127.0.0.1:{port}", auto_decompress=False)
        yield House(upstream, await stack.enter_async_context(client))


async def read_into(received: bytearray, response: aiohttp.ClientResponse) -> None:
    async for piece in response.content.iter_any():
        received += piece


async def test_an_image_is_pulled_cold_and_then_warm(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        image = house.upstream.content.add_image("acme/app", "1.0", (LAYER,))
        head = await house.ask("/v2/acme/app/manifests/1.0", "HEAD")
        got = await house.ask("/v2/acme/app/manifests/1.0")
        assert head.headers["Docker-Content-Digest"] == image.manifest
        assert head.headers["Content-Length"] == str(len(image.body))
        assert (got.status, got.body) == (200, image.body)
        by_digest = await house.ask(f"/v2/acme/app/manifests/{image.manifest}")
        assert by_digest.headers["Cache-Status"] == "moorage; hit"
        for digest in (image.config, *image.layers):
            cold = await house.ask(f"/v2/acme/app/blobs/{digest}")
            warm = await house.ask_until_hit(f"/v2/acme/app/blobs/{digest}")
            assert cold.body == warm.body
            assert "fwd=uri-miss" in cold.headers["Cache-Status"]
            assert warm.headers["Content-Length"] == str(len(warm.body))
            assert "Age" in warm.headers
            assert "Date" in warm.headers
        assert house.upstream.count(method="GET", kind="blob") == 2


async def test_many_clients_of_a_cold_blob_are_one_upstream_get(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        digest = house.upstream.content.add_blob("acme/app", LAYER)
        replies = await asyncio.gather(
            *(house.ask(f"/v2/acme/app/blobs/{digest}") for _ in range(20))
        )
        assert all((reply.status, reply.body) == (200, LAYER) for reply in replies)
        assert house.upstream.count(method="GET", kind="blob") == 1
        told = sorted(reply.headers["Cache-Status"] for reply in replies)
        assert told[0] == "moorage; fwd=uri-miss; collapsed"
        assert told[-1] == "moorage; fwd=uri-miss; fwd-status=200; stored"


async def test_head_of_a_cold_blob_downloads_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        digest = house.upstream.content.add_blob("acme/app", LAYER)
        reply = await house.ask(f"/v2/acme/app/blobs/{digest}", "HEAD")
        assert (reply.status, reply.headers["Content-Length"]) == (200, str(len(LAYER)))
        assert house.upstream.count(method="GET", kind="blob") == 0


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=300000-", 300_000, len(LAYER)),
        ("bytes=-5", len(LAYER) - 5, len(LAYER)),
    ],
)
async def test_a_range_is_the_same_cold_and_warm(
    tmp_path: Path, asked: str, start: int, end: int
) -> None:
    async with open_house(tmp_path) as house:
        digest = house.upstream.content.add_blob("acme/app", LAYER)
        for _ in range(2):
            reply = await house.ask(f"/v2/acme/app/blobs/{digest}", range=asked)
            assert (reply.status, reply.body) == (206, LAYER[start:end])
            assert reply.headers["Content-Length"] == str(end - start)
            assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(LAYER)}"
        assert house.upstream.count(method="GET", kind="blob") == 1


async def test_a_range_far_past_a_stalled_fill_does_not_wait_for_it(tmp_path: Path) -> None:
    vast = os.urandom(NEAR_BYTES + 512 * KIB)
    start = len(vast) - 200 * KIB
    gate = Gate()
    async with open_house(tmp_path) as house:
        digest = house.upstream.content.add_blob("acme/app", vast)
        house.upstream.fail(Fault(stall_at=100 * KIB, gate=gate), kind="blob")
        reply = await house.ask(
            f"/v2/acme/app/blobs/{digest}", range=f"bytes={start}-{start + 999}"
        )
        assert (reply.status, reply.body) == (206, vast[start : start + 1000])
        gate.open()
        tail = await house.ask(f"/v2/acme/app/blobs/{digest}", range=f"bytes={start}-")
        assert (tail.status, tail.body) == (206, vast[start:])


async def test_no_client_completes_a_wrong_blob(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        digest = house.upstream.content.add_blob("acme/app", LAYER)
        house.upstream.fail(Fault(corrupt_at=5), kind="blob", times=None)
        received = bytearray()
        async with house.client.get(f"/v2/acme/app/blobs/{digest}") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await read_into(received, response)
        assert len(received) <= len(LAYER) - HELD_BACK_BYTES
        house.upstream.heal()
        assert (await house.ask(f"/v2/acme/app/blobs/{digest}")).body == LAYER


async def test_a_client_that_leaves_does_not_end_the_fill(tmp_path: Path) -> None:
    gate = Gate()
    async with open_house(tmp_path) as house:
        digest = house.upstream.content.add_blob("acme/app", LAYER)
        house.upstream.fail(Fault(stall_at=300 * KIB, gate=gate), kind="blob")
        response = await house.client.get(f"/v2/acme/app/blobs/{digest}")
        assert await response.content.readexactly(100 * KIB) == LAYER[: 100 * KIB]
        response.close()
        gate.open()
        assert (await house.ask(f"/v2/acme/app/blobs/{digest}")).body == LAYER
        assert house.upstream.count(method="GET", kind="blob") == 1


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault(status=403), 403, "DENIED"),
        (Fault(status=429, headers={"Retry-After": "9"}), 429, "TOOMANYREQUESTS"),
        (Fault(status=404, code="MANIFEST_UNKNOWN"), 404, "MANIFEST_UNKNOWN"),
    ],
)
async def test_an_upstreams_answer_is_told_truthfully(
    tmp_path: Path, fault: Fault, status: int, code: str
) -> None:
    async with open_house(tmp_path) as house:
        house.upstream.content.add_image("acme/app", "1.0", (LAYER,))
        house.upstream.fail(fault, kind="manifest", times=None)
        reply = await house.ask("/v2/acme/app/manifests/1.0")
        assert reply.status == status
        assert json.loads(reply.body)["errors"][0]["code"] == code
        assert reply.headers["Cache-Status"] == f"moorage; fwd=uri-miss; fwd-status={status}"
        assert "WWW-Authenticate" not in reply.headers


async def test_a_tag_outlives_its_upstream_with_a_warning(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        image = house.upstream.content.add_image("acme/app", "1.0", (LAYER,))
        assert (await house.ask("/v2/acme/app/manifests/1.0")).status == 200
        house.upstream.fail(Fault(status=429), kind="manifest", times=None)
        reply = await house.ask("/v2/acme/app/manifests/1.0")
        assert (reply.status, reply.body) == (200, image.body)
        assert reply.headers["Warning"].startswith('299 - "')
        assert "fwd=stale" in reply.headers["Cache-Status"]


async def test_lists_come_from_upstream_and_the_catalog_from_here(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        image = house.upstream.content.add_image("acme/app", "1.0", (LAYER,))
        house.upstream.content.add_image("acme/app", "2.0", (LAYER,))
        tags = await house.ask("/v2/docker.io/acme/app/tags/list?n=1")
        assert json.loads(tags.body) == {"name": "docker.io/acme/app", "tags": ["1.0"]}
        rest = tags.headers["Link"].partition(">")[0].removeprefix("<")
        assert json.loads((await house.ask(rest)).body)["tags"] == ["2.0"]
        await house.ask("/v2/acme/app/manifests/1.0")
        catalog = await house.ask("/v2/_catalog")
        assert json.loads(catalog.body) == {"repositories": ["acme/app"]}
        referrers = await house.ask(f"/v2/acme/app/referrers/{image.manifest}")
        assert (referrers.status, json.loads(referrers.body)["manifests"]) == (200, [])


async def test_a_hit_whose_file_was_deleted_is_fetched_anew(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for data in (LAYER, b"small"):
            digest = house.upstream.content.add_blob("acme/app", data)
            path = f"/v2/acme/app/blobs/{digest}"
            await house.ask_until_hit(path)
            (file,) = (tmp_path / "blobs").rglob(digest.hex)
            file.unlink()
            await house.ask_until_hit(path)  # open or in memory: still right
    async with open_house(tmp_path) as house:
        for data in (LAYER, b"small"):
            digest = house.upstream.content.add_blob("acme/app", data)
            reply = await house.ask(f"/v2/acme/app/blobs/{digest}")
            assert (reply.status, reply.body) == (200, data)
        assert house.upstream.count(method="GET", kind="blob") == 2
