"""`/metrics` answered by a cache at work: formats, packing, and turns for others in between."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import pytest

from engine.names import Tag
from engine.settings import EngineSettings
from server.counters import Counters
from server.health import Health
from server.instruments import Instruments
from server.metrics import Metrics
from server.routes import Router
from server.settings import ServerSettings
from tests.fakes.caches import BUSYBOX
from tests.fakes.counted import UPSTREAMS, make_counters
from tests.fakes.exchange import FakeExchange
from tests.fakes.scrape import Scrape
from tests.fakes.stocked import Upstreams, pull_image

pytestmark = pytest.mark.anyio

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def make_metrics(counters: Counters) -> Metrics:
    settings = ServerSettings(EngineSettings(Path("/nowhere"), UPSTREAMS))
    return Metrics("/metrics", Instruments(settings, counters), Health())


async def scrape(metrics: Metrics, target: bytes = b"/metrics", **headers: str) -> FakeExchange:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    exchange = FakeExchange(target, headers=fields)
    assert not metrics.respond_now(exchange)
    await metrics.respond(exchange)
    assert exchange.answer.status == 200
    return exchange


@pytest.fixture
async def metrics(tmp_path: Path) -> AsyncIterator[Metrics]:
    """Metrics of a cache that has pulled an image."""
    upstreams = Upstreams()
    async with upstreams.cache(tmp_path) as cache:
        await pull_image(cache, upstreams, BUSYBOX, "1.35")
        await cache.get_manifest(BUSYBOX, Tag("1.35"))
        metrics = make_metrics(make_counters(b"/v2/"))
        metrics.instruments.cache = cache
        yield metrics


async def test_a_scrape_tells_of_exchanges_cache_and_process(metrics: Metrics) -> None:
    exchange = await scrape(metrics)
    assert exchange.fields["content-type"].startswith("text/plain; version=0.0.4")
    seen = Scrape.read(exchange.body.decode())
    assert seen.value("moorage_http_requests_total", "none", "GET", "base", "200") == 1
    assert seen.value("moorage_fills_total", "done") == 3
    assert seen.value("moorage_storage_used_bytes", "blobs") > 0
    assert seen.value("process_resident_memory_bytes") > 1_000_000
    assert list(seen.rows("moorage_build_info")) == [(python_version(), version("moorage"))]


async def test_openmetrics_and_gzip_are_given_to_who_asks(metrics: Metrics) -> None:
    plain = Scrape.read((await scrape(metrics)).body.decode())
    packed = await scrape(metrics, accept=OPEN_METRICS, accept_encoding="deflate, gzip;q=0.8")
    assert packed.fields["content-encoding"] == "gzip"
    assert packed.fields["content-type"].startswith("application/openmetrics-text")
    text = gzip.decompress(packed.body).decode()
    assert text.count("# EOF\n") == 1
    names = {name.removesuffix("_info") for name in plain.names}
    assert Scrape.read(text).names == names


async def test_a_large_family_is_in_one_piece(metrics: Metrics) -> None:
    """It is rendered in parts; a second HELP or TYPE would be an error to Prometheus."""
    for number in range(200):
        exchange = FakeExchange(b"/v2/", status=200 + number)
        metrics.instruments.counters.exchange_over(exchange, 1, 0.001)
    for accept in ("", OPEN_METRICS):
        body = (await scrape(metrics, accept=accept)).body.decode()
        assert body.count("# TYPE moorage_http_requests") == 1
        assert len(Scrape.read(body).rows("moorage_http_requests_total")) == 200


async def test_others_have_their_turn_while_a_scrape_is_made(metrics: Metrics) -> None:
    task = asyncio.create_task(scrape(metrics))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    families = Scrape.read(task.result().body.decode()).families
    assert turns >= sum(bool(family.samples) for family in families)


async def test_while_the_cache_is_not_open_there_is_an_answer_without_it() -> None:
    seen = Scrape.read((await scrape(make_metrics(make_counters(b"/v2/")))).body.decode())
    assert "moorage_http_requests" in seen.names
    assert "moorage_storage_limit_bytes" not in seen.names


async def test_only_its_own_path_is_answered() -> None:
    metrics = make_metrics(Counters(Router(UPSTREAMS)))
    for target, method, status in (
        (b"/healthz", b"GET", 200),
        (b"/metrics/more", b"GET", 404),
        (b"/metrics", b"POST", 404),
    ):
        exchange = FakeExchange(target, method=method)
        assert metrics.respond_now(exchange)
        assert int(exchange.head.split(b" ")[1]) == status


async def test_a_query_changes_nothing_and_head_has_no_body() -> None:
    metrics = make_metrics(make_counters())
    assert (await scrape(metrics, b"/metrics?name=value")).body
    exchange = FakeExchange(b"/metrics", method=b"HEAD")
    await metrics.respond(exchange)
    assert int(exchange.fields["content-length"]) > 1_000
