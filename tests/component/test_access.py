"""The gate: who may pass, what the others are told, and that nothing else changes."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.access import Gate, open_gate
from server.accounts_file import AccountsError
from server.login_limit import MAX_PER_USER
from server.logins import Logins
from server.settings import HtpasswdSettings
from tests.fakes.accounts import Clock, CountedCheck, basic, write_accounts
from tests.fakes.behind import Behind
from tests.fakes.exchange import Answer, FakeExchange

pytestmark = pytest.mark.anyio

HIT, COLD = b"/v2/acme/app/blobs/hit", b"/v2/acme/app/blobs/cold"
RIGHT = basic("ci", "right")
CONTAINERD = "containerd/1.7.24"


class Door:
    """A gate before `Behind`, and how to come to it."""

    def __init__(self, path: Path) -> None:
        write_accounts(path, ci="right")
        self.check = CountedCheck()
        self.behind = Behind(COLD)
        self.logins = Logins(path, check=self.check, clock=Clock())
        self.gate = Gate(self.behind, "basic-realm", self.logins)

    async def ask(
        self, target: bytes, authorization: str | None = None, method: str = "GET", agent: str = ""
    ) -> Answer:
        """Ask as the transport does."""
        headers = {"user-agent": agent}
        if authorization is not None:
            headers["authorization"] = authorization
        exchange = FakeExchange(target, method.encode(), headers)
        if not self.gate.respond_now(exchange):
            await self.gate.respond(exchange)
        return exchange.answer


@asynccontextmanager
async def open_door(directory: Path) -> AsyncIterator[Door]:
    door = Door(directory / "htpasswd")
    try:
        yield door
    finally:
        await door.logins.aclose()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "target", [b"/v2/", HIT, COLD, b"/nowhere", b"//", b"/%2f", b"*", b"/v2/_catalog?n=1"]
)
async def test_without_credentials_nothing_but_a_challenge_is_had(
    tmp_path: Path, target: bytes, method: str
) -> None:
    async with open_door(tmp_path) as door:
        answer = await door.ask(target, method=method)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="basic-realm"'
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-status"] == "moorage; detail=not-forwarded"
        if method == "HEAD":
            assert int(answer.headers["content-length"]) > 0
        else:
            (error,) = json.loads(answer.body)["errors"]
            assert error["code"] == "UNAUTHORIZED"
            assert error["message"].startswith("authentication required: ")
        assert door.behind.reached == []


@pytest.mark.parametrize("authorization", [None, basic("ci", "wrong"), "Bearer x"])
async def test_that_the_server_is_alive_is_told_to_everybody(
    tmp_path: Path, authorization: str | None
) -> None:
    async with open_door(tmp_path) as door:
        for target in (b"/", b"/?x=1"):
            assert (await door.ask(target, authorization)).status == 200
        exchange = FakeExchange(b"/")
        await door.gate.respond(exchange)  # as the transport may do for one that waited
        assert exchange.answer.status == 200
        assert door.check.count == 0


@pytest.mark.parametrize("target", [HIT, COLD])
async def test_with_valid_credentials_all_is_as_without_a_gate(
    tmp_path: Path, target: bytes
) -> None:
    async with open_door(tmp_path) as door:
        for _ in range(5):
            assert (await door.ask(target, RIGHT)).status == 200
        assert door.behind.reached == [target] * 5
        assert door.check.count == 1


async def test_a_hit_with_known_credentials_waits_for_nothing(tmp_path: Path) -> None:
    async with open_door(tmp_path) as door:
        headers = {"authorization": RIGHT}
        assert not door.gate.respond_now(FakeExchange(HIT, headers=headers))
        await door.ask(HIT, RIGHT)
        assert door.gate.respond_now(FakeExchange(HIT, headers=headers))
        assert not door.gate.respond_now(FakeExchange(COLD, headers=headers))


@pytest.mark.parametrize(
    "authorization",
    [basic("ci", "wrong"), basic("eve", "right"), "Basic Og==", "Bearer x", RIGHT + ", " + RIGHT],
)
async def test_invalid_credentials_are_challenged_again(tmp_path: Path, authorization: str) -> None:
    async with open_door(tmp_path) as door:
        for _ in range(2):
            answer = await door.ask(HIT, authorization)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == 'Basic realm="basic-realm"'
            assert json.loads(answer.body)["errors"][0]["code"] == "UNAUTHORIZED"
        assert door.behind.reached == []


@pytest.mark.parametrize(
    ("agent", "status", "code"),
    [("docker/20.10.24", 429, "TOOMANYREQUESTS"), (CONTAINERD, 503, "UNAVAILABLE")],
)
async def test_after_many_failures_a_client_is_told_to_wait(
    tmp_path: Path, agent: str, status: int, code: str
) -> None:
    async with open_door(tmp_path) as door:
        for number in range(MAX_PER_USER):
            assert (await door.ask(HIT, basic("ci", f"guess {number}"))).status == 401
        answer = await door.ask(HIT, RIGHT, agent=agent)
        assert answer.status == status
        assert answer.headers["retry-after"] == "60"
        assert "www-authenticate" not in answer.headers
        assert json.loads(answer.body)["errors"][0]["code"] == code
        assert door.check.count == MAX_PER_USER


async def test_a_missing_file_is_made_and_its_password_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = HtpasswdSettings("r", tmp_path / "new" / "htpasswd")
    caplog.set_level(logging.INFO)
    async with open_gate(Behind(COLD), settings) as gate:
        (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
        _, _, password = record.getMessage().rpartition("user=docker password=")
        exchange = FakeExchange(HIT, headers={"authorization": basic("docker", password)})
        await gate.respond(exchange)
        assert exchange.answer.status == 200
    caplog.clear()
    async with open_gate(Behind(COLD), settings):
        assert password not in caplog.text
        assert "count=1" in caplog.text


async def test_a_gate_does_not_open_on_accounts_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("ci:secret\n")
    with pytest.raises(AccountsError, match="htpasswd: line 1: the hash is not bcrypt's"):
        async with open_gate(Behind(COLD), HtpasswdSettings("r", path)):
            raise AssertionError("it is open")
