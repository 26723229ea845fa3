"""The operator's API: every path, and everything that it refuses."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.cache import Cache
from server.counters import Counters
from server.debug_guard import Guard
from server.debug_port import DebugPort
from server.health import Health
from server.instruments import Instruments
from server.operator_api import OperatorApi
from server.settings import Listener
from tests.fakes.caches import BUSYBOX
from tests.fakes.counted import make_counters
from tests.fakes.exchange import Answer, FakeExchange
from tests.fakes.operating import operating
from tests.fakes.stocked import Upstreams, pull_image
from tests.fakes.upstream_content import Image

pytestmark = pytest.mark.anyio

TOKEN = "0123456789abcdef"
LOOPBACK = (Listener("127.0.0.1", 5001),)


class Site:
    """A debug port over a cache with one image in it."""

    def __init__(self, port: DebugPort, health: Health, instruments: Instruments) -> None:
        self.port = port
        self.health = health
        self.instruments = instruments

    async def ask(
        self, target: str, method: str = "GET", *, token: str | None = None, host: str = "127.0.0.1"
    ) -> Answer:
        headers = {"host": host}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        exchange = FakeExchange(target.encode(), method.encode(), headers)
        if not self.port.respond_now(exchange):
            await self.port.respond(exchange)
        # As the transport does where the handler leaves it to it.
        exchange.status = exchange.status or int(exchange.head[9:12])
        return exchange.answer

    async def act(self, target: str) -> Answer:
        return await self.ask(target, "POST", token=TOKEN)


async def make_site(cache: Cache | None, path: Path, counters: Counters) -> AsyncIterator[Site]:
    async with operating(cache, path, counters=counters) as (operator, instruments):
        health = Health()
        guard = Guard(TOKEN, LOOPBACK)
        api = OperatorApi(operator, guard)
        yield Site(DebugPort(health, api), health, instruments)


@pytest.fixture
async def image_and_site(tmp_path: Path) -> AsyncIterator[tuple[Image, Site]]:
    upstreams = Upstreams()
    async with upstreams.cache(tmp_path) as cache:
        image = await pull_image(cache, upstreams, BUSYBOX, "1.35")
        async for site in make_site(cache, tmp_path, make_counters(b"/v2/")):
            yield image, site


@pytest.fixture
async def site(image_and_site: tuple[Image, Site]) -> Site:
    return image_and_site[1]


def read(answer: Answer) -> Any:  # whatever JSON holds
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    return json.loads(answer.body)


async def test_status_has_everything_that_the_page_shows(site: Site) -> None:
    answer = await site.ask("/api/v1/status")
    assert answer.status == 200
    facts = read(answer)
    assert facts["server"]["state"] == "starting"  # the main port is not open here
    assert facts["traffic"]["request_count"] == 1
    assert facts["space"]["limit_bytes"] > facts["space"]["stored_bytes"] > 0
    assert [each["name"] for each in facts["upstreams"]] == ["docker.io", "ghcr.io"]
    assert facts["survey"]["blob_count"] == 4
    assert facts["survey"]["largest"][0]["repository"] == "docker.io/library/busybox"
    assert len(facts["survey"]["victims"]) == 4
    assert facts["samples"][-1]["request_count"] == 1


async def test_explain_says_what_a_tag_or_digest_is(image_and_site: tuple[Image, Site]) -> None:
    image, site = image_and_site
    by_tag = read(await site.ask("/api/v1/explain?q=docker.io/library/busybox:1.35"))
    by_digest = read(await site.ask(f"/api/v1/explain?q={image.manifest}"))
    assert by_tag["digest"] == by_digest["digest"] == image.manifest
    assert by_tag["is_stored"]
    assert by_tag["tags"][0]["freshness"] == "asks upstream first"
    assert [each["is_stored"] for each in by_tag["named"]] == [True] * 3


async def test_what_is_told_goes_by_the_settings_in_force(site: Site) -> None:
    """As a reload leaves them."""
    engine = site.instruments.settings.engine
    hub, *others = engine.upstreams
    engine = replace(
        engine,
        upstreams=(replace(hub, tagttl_s=3600.0), *others),
        eviction=replace(engine.eviction, pins=("docker.io/library/busybox:*",)),
    )
    site.instruments.settings = replace(site.instruments.settings, engine=engine)
    known = read(await site.ask("/api/v1/explain?q=docker.io/library/busybox:1.35"))
    assert known["tags"][0]["freshness"] == "is answered without asking upstream"
    assert known["pins"] == "docker.io/library/busybox:*"
    assert read(await site.ask("/api/v1/status"))["survey"]["victims"] == []


async def test_purge_pin_and_unpin_do_what_they_say(image_and_site: tuple[Image, Site]) -> None:
    image, site = image_and_site
    glob = "docker.io/library/*:*"
    assert read(await site.act(f"/api/v1/pin?glob={glob}"))["is_new"]
    assert not read(await site.act(f"/api/v1/pin?glob={glob}"))["is_new"]
    assert read(await site.act(f"/api/v1/unpin?glob={glob}"))["is_new"]
    target = "/api/v1/purge?ref=library/busybox:1.35"
    dry = read(await site.act(f"{target}&dry_run"))
    assert (dry["is_dry_run"], len(dry["blobs"])) == (True, 4)
    assert read(await site.ask(f"/api/v1/explain?q={image.manifest}"))["is_stored"]
    assert not read(await site.act(target))["is_dry_run"]
    assert not read(await site.ask(f"/api/v1/explain?q={image.manifest}"))["is_stored"]
    assert read(await site.act("/api/v1/purge?upstream=docker.io"))["tags"] == []


async def test_warm_tells_how_it_ended_in_its_last_line(site: Site) -> None:
    answer = await site.act("/api/v1/warm?ref=library/busybox:1.35")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
    last = json.loads(answer.body.splitlines()[-1])
    assert (last["state"], last["hit_bytes"]) == ("done", last["total_bytes"])
    failed = await site.act("/api/v1/warm?ref=library/nothing:1&platform=linux/amd64")
    assert json.loads(failed.body.splitlines()[-1])["state"] == "failed"


async def test_drain_has_the_server_end(site: Site) -> None:
    assert not site.instruments.stop.is_set()
    assert read(await site.act("/api/v1/drain"))["timeout_s"] == 25.0
    assert site.instruments.stop.is_set()
    assert read(await site.ask("/api/v1/status"))["server"]["state"] == "draining"


@pytest.mark.parametrize("act", ["purge?ref=a/b:1", "pin?glob=a/b:1", "unpin?glob=a/b:1", "drain",
                                 "warm?ref=a/b:1"])  # fmt: skip
async def test_nothing_is_changed_without_the_token_or_by_get(site: Site, act: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        answer = await site.ask(f"/api/v1/{act}", method, token=TOKEN)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    missing = await site.ask(f"/api/v1/{act}", "POST")
    assert (missing.status, missing.headers["www-authenticate"]) == (401, 'Bearer realm="moorage"')
    assert (await site.ask(f"/api/v1/{act}", "POST", token="wrong")).status == 401
    assert not site.instruments.stop.is_set()


@pytest.mark.parametrize("target", ["/api/v1/status", "/api/v1/explain?q=busybox:1"])
async def test_facts_are_not_given_to_a_page_under_a_name_of_its_own(
    site: Site, target: str
) -> None:
    assert (await site.ask(target, host="evil.example:5001")).status == 403
    assert (await site.ask(target, host="evil.example:5001", token=TOKEN)).status != 403
    refused = await site.ask(target, "POST", token=TOKEN)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("/api/v1/explain", "q is missing"),
        ("/api/v1/explain?q=", "q is missing"),
        ("/api/v1/explain?q=a&q=b", "more than once"),
        ("/api/v1/explain?q=library/busybox", "neither a tag nor a digest"),
        ("/api/v1/explain?q=%3Cscript%3E", "is not a repository"),
        ("/api/v1/explain?what=busybox", "unknown parameter 'what'"),
        ("/api/v1/explain?q=" + "&a" * 100, "cannot be read"),
        ("/api/v1/explain?q=\xff", "cannot be read"),
    ],
)
async def test_a_question_that_makes_no_sense_is_400(site: Site, target: str, part: str) -> None:
    answer = await site.ask(target)
    assert answer.status == 400
    assert part in read(answer)["error"]


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/purge",
        "/api/v1/purge?ref=a/b:1&upstream=docker.io",
        "/api/v1/purge?ref=../etc",
        "/api/v1/purge?ref=library/busybox:1.35&dry_run=yes",
        "/api/v1/warm?ref=library/busybox:1.35&all_platforms=all",
        "/api/v1/pin?glob=busybox",
        "/api/v1/unpin",
        "/api/v1/warm",
    ],
)
async def test_an_act_that_makes_no_sense_is_400(site: Site, target: str) -> None:
    assert (await site.act(target)).status == 400


async def test_what_is_not_there_is_404(site: Site) -> None:
    for target in ("/api/", "/api/v1/nothing", "/api/v2/status"):
        assert (await site.ask(target, token=TOKEN)).status == 404
    assert (await site.ask("/nothing")).status == 404
    assert (await site.ask("/api/v1/explain?q=library/nothing:1")).status == 404


async def test_health_and_the_page_are_everybodys(site: Site) -> None:
    assert (await site.ask("/readyz", host="evil.example")).status == 503
    site.health.is_ready = True
    assert (await site.ask("/readyz", host="evil.example")).status == 200
    page = await site.ask("/", host="evil.example")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "docker.io" not in page.headers["content-security-policy"]
    head = await site.ask("/", "HEAD")
    assert (head.status, head.body) == (200, b"")
    refused = await site.ask("/", "POST", token=TOKEN)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_before_the_cache_is_open_everything_is_503(tmp_path: Path) -> None:
    async for site in make_site(None, tmp_path, make_counters(b"/v2/")):
        for target in ("status", "explain?q=library/busybox:1"):
            answer = await site.ask(f"/api/v1/{target}")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "has not opened its cache yet" in read(answer)["error"]
        for target in ("purge?ref=a/b:1", "warm?ref=a/b:1"):
            assert (await site.act(f"/api/v1/{target}")).status == 503


async def test_wrong_tokens_are_logged_without_them_and_not_each_time(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        await site.ask("/api/v1/drain", "POST", token="hunter2-hunter2-hunter2")
    assert caplog.text.count("operator's token refused remote=127.0.0.1") == 1
    assert "hunter2" not in caplog.text
