"""The gate of access rules: what it lets through, what it says to others, what lists show."""

import json
import logging
from pathlib import Path

import pytest

from engine.lookup import TagPage
from engine.names import Location, Repository
from engine.settings import EngineSettings
from server.access_gate import Access, AccessGate
from server.access_rules import Rules
from server.api import Api
from server.routes import Router
from server.settings import AccessRule, AccessSettings, ServerSettings
from tests.fakes.behind import Behind
from tests.fakes.cache import FakeCache, digest_of
from tests.fakes.exchange import Answer, FakeExchange
from tests.fakes.upstreams import GHCR, HUB, LOCAL

pytestmark = pytest.mark.anyio

UPSTREAMS = (HUB, GHCR, LOCAL)
DIGEST = digest_of(b"content")
RULES = AccessSettings(
    (
        AccessRule(networks=("10.0.0.0/8",), allow=("*",)),
        AccessRule(users=("ci-*",), allow=("ghcr.io/org/*",), deny=("ghcr.io/org/secret",)),
        AccessRule(allow=("docker.io/acme/app:1.*",)),
    )
)
OPEN = ["/", "/v2/", "/v2", "/v2/_catalog", "/nowhere", "/v2/acme/app/blobs/nonsense"]
KINDS = [
    "manifests/2",
    f"manifests/{DIGEST}",
    f"blobs/{DIGEST}",
    "tags/list",
    f"referrers/{DIGEST}",
]


class Door:
    """A gate before `Behind`."""

    def __init__(self, settings: AccessSettings = RULES) -> None:
        self.behind = Behind(b"/blobs/")
        self.access = Access(Rules(settings))
        self.gate = AccessGate(self.behind, self.access, Router(UPSTREAMS))

    async def ask(self, exchange: FakeExchange) -> Answer:
        if not self.gate.respond_now(exchange):
            await self.gate.respond(exchange)
        return exchange.answer

    async def status(self, target: str, remote: str = "192.0.2.1", user: str = "") -> int:
        return (await self.ask(FakeExchange(target.encode(), remote=remote, user=user))).status


@pytest.mark.parametrize("target", OPEN)
async def test_what_names_no_repository_is_left_to_the_api(target: str) -> None:
    assert await Door().status(target) == 200


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_repository_gives_nothing_away(kind: str, method: bytes) -> None:
    door = Door()
    exchange = FakeExchange(f"/v2/org/secret/{kind}?ns=ghcr.io".encode(), method, user="ci-1")
    answer = await door.ask(exchange)
    assert answer.status == 403
    assert answer.headers["cache-status"] == "moorage; detail=not-forwarded"
    assert answer.headers["oci-namespace"] == "ghcr.io"
    assert int(answer.headers["content-length"]) > 0
    if method == b"GET":
        assert json.loads(answer.body)["errors"] == [
            {
                "code": "DENIED",
                "message": "denied by access.rules[1] in the configuration of this mirror",
            }
        ]
    assert exchange.upstream == "ghcr.io"
    assert door.behind.reached == []
    assert door.access.denied_counts == {"access.rules[1]": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_open_repository_is_as_without_a_gate(kind: str) -> None:
    door = Door()
    assert await door.status(f"/v2/ghcr.io/org/app/{kind}", user="ci-1") == 200
    assert await door.status(f"/v2/ghcr.io/org/app/{kind}", remote="10.1.2.3") == 200
    assert await door.status(f"/v2/ghcr.io/org/app/{kind}", user="bob") == 403
    assert await door.status(f"/v2/ghcr.io/org/app/{kind}") == 403
    assert len(door.behind.reached) == 2


async def test_a_limit_to_tags_is_one_of_names() -> None:
    door = Door()
    assert await door.status("/v2/acme/app/manifests/1.2") == 200
    assert await door.status("/v2/acme/app/manifests/2") == 403
    assert await door.status(f"/v2/acme/app/manifests/{DIGEST}") == 200
    assert await door.status(f"/v2/acme/app/blobs/{DIGEST}") == 200


@pytest.mark.parametrize(
    "target",
    [
        "/v2/org/secret/manifests/1?ns=ghcr.io",
        "/v2/ghcr.io/org/secret/manifests/1",
        "/v2/ghcr.io/org/secret/manifests/1?ns=ghcr.io",
        "/v2/ghcr.io/org%2fsecret/manifests/1",
        "/v2/ghcr.io/org/%73ecret/manifests/1",
    ],
)
async def test_a_repository_is_the_same_however_it_is_asked_for(target: str) -> None:
    assert await Door().status(target, user="ci-1") == 403


async def test_the_host_chooses_the_repository_that_is_judged() -> None:
    door = Door()
    for host, status in (("ghcr.io", 403), ("mirror", 200)):
        exchange = FakeExchange(b"/v2/acme/app/manifests/1.2", headers={"host": host})
        assert (await door.ask(exchange)).status == status


async def test_an_exchange_that_waited_is_judged_too() -> None:
    door = Door()
    exchange = FakeExchange(f"/v2/acme/secret/blobs/{DIGEST}".encode())
    await door.gate.respond(exchange)
    assert exchange.answer.status == 403


async def test_whoever_is_remembered_is_not_taken_for_another() -> None:
    door = Door()
    target = "/v2/ghcr.io/org/app/tags/list"
    for _ in range(2):
        assert await door.status(target, user="ci-1") == 200
        assert await door.status(target, user="bob") == 403
        assert await door.status(target, remote="10.0.0.1", user="bob") == 200
        named = FakeExchange(target.encode(), certificate_name="ci-1")
        assert (await door.ask(named)).status == 403


async def test_other_rules_hold_from_the_moment_they_are_adopted() -> None:
    door = Door()
    target = "/v2/ghcr.io/org/app/tags/list"
    assert await door.status(target, user="ci-1") == 200
    closed = AccessSettings((AccessRule(deny=("ghcr.io/*",)),), is_allowed_by_default=True)
    settings = ServerSettings(EngineSettings(Path("/srv"), UPSTREAMS), access=closed)
    await door.access.adopt(settings)
    assert await door.status(target, user="ci-1") == 403
    assert await door.status("/v2/acme/other/tags/list") == 200


async def test_a_denial_is_logged_with_who_it_was(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await door.status("/v2/ghcr.io/org/secret/tags/list", user="ci-1")
    (record,) = caplog.records
    assert record.getMessage() == (
        "access denied rule=access.rules[1] repository=ghcr.io/org/secret remote=192.0.2.1 "
        "user=ci-1 certificate='-' suppressed=0"
    )
    assert door.access.denied_counts.total() == 3


class Desk:
    """The API with rules, over a fake cache, and without a gate."""

    def __init__(self, directory: Path) -> None:
        self.cache = FakeCache(directory)
        settings = ServerSettings(EngineSettings(directory, UPSTREAMS))
        self.api = Api(self.cache, settings, access=Access(Rules(RULES)))

    async def list_all(self, target: str, remote: str = "192.0.2.1", user: str = "") -> list[str]:
        exchange = FakeExchange(target.encode(), remote=remote, user=user)
        await self.api.respond(exchange)
        document = json.loads(exchange.answer.body)
        return list(document.get("tags") or document["repositories"])


async def test_a_list_of_tags_shows_what_may_be_pulled(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.cache.tags = TagPage(("1.0", "1.1", "2.0", "latest"))
    assert await desk.list_all("/v2/acme/app/tags/list") == ["1.0", "1.1"]
    assert await desk.list_all("/v2/acme/app/tags/list?n=1&last=1.0") == ["1.1"]
    assert len(await desk.list_all("/v2/acme/app/tags/list", remote="10.0.0.1")) == 4


async def test_the_catalogue_shows_what_may_be_pulled(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    names = [("docker.io", "acme/app"), ("docker.io", "acme/x"), ("ghcr.io", "org/secret")]
    names.append(("ghcr.io", "org/app"))
    desk.cache.repositories = [Location(one, Repository(name)) for one, name in names]
    assert await desk.list_all("/v2/_catalog") == ["acme/app"]
    assert await desk.list_all("/v2/_catalog", user="ci-1") == ["acme/app", "ghcr.io/org/app"]
    assert len(await desk.list_all("/v2/_catalog", remote="10.0.0.1")) == 4
