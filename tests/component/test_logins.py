"""Credentials are checked once, judged by the file as it is, and guesses run out."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import UpstreamUnavailable
from server import logins as module
from server.login_limit import MAX_PER_USER, WINDOW_S
from server.logins import LOOK_S, Logins
from server.refusals import LoginsLimited
from tests.fakes.accounts import Clock, CountedCheck, basic, write_accounts

pytestmark = pytest.mark.anyio

HOST, OTHER = "192.0.2.1", "192.0.2.2"


class Bench:
    """Logins by a file that has `ci` with the password `right`, and what they need."""

    def __init__(self, path: Path) -> None:
        self.path = path
        write_accounts(path, ci="right", bob="his")
        self.check = CountedCheck()
        self.clock = Clock()
        self.logins = Logins(path, check=self.check, clock=self.clock)

    async def judge(self, user: str, password: str, address: str = HOST) -> bool:
        return await self.logins.judge(basic(user, password).encode(), address)

    def knows(self, user: str, password: str) -> bool:
        return self.logins.find_user(basic(user, password).encode()) is not None

    def change(self, **passwords: str) -> None:
        """Write the file, and let the time pass after which it is looked at."""
        write_accounts(self.path, **passwords)
        self.clock.now += LOOK_S


@asynccontextmanager
async def open_bench(directory: Path) -> AsyncIterator[Bench]:
    bench = Bench(directory / "htpasswd")
    try:
        yield bench
    finally:
        bench.check.gate.set()
        await bench.logins.aclose()


async def test_right_credentials_are_checked_once_and_known_from_then_on(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        assert not bench.knows("ci", "right")
        for _ in range(3):
            assert await bench.judge("ci", "right")
            assert await bench.judge("ci", "right", OTHER)
            assert bench.knows("ci", "right")
        assert bench.check.users == ["ci"]


async def test_wrong_credentials_are_checked_once_and_never_let_in(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        for _ in range(MAX_PER_USER * 2):
            assert not await bench.judge("ci", "wrong")
            assert not bench.knows("ci", "wrong")
        assert bench.check.count == 1
        # So whoever has the new password is not shut out by those that have the old one.
        assert await bench.judge("ci", "right")


@pytest.mark.parametrize("field", [b"Bearer abc", b"Basic *", b"Basic Og==", b""])
async def test_what_names_no_account_is_refused_without_a_check(
    tmp_path: Path, field: bytes
) -> None:
    async with open_bench(tmp_path) as bench:
        for _ in range(MAX_PER_USER * 2):
            assert not await bench.logins.judge(field, HOST)
        assert bench.check.count == 0


@pytest.mark.parametrize(("password", "is_right"), [("right", True), ("wrong", False)])
async def test_checks_of_the_same_credentials_at_a_time_are_one(
    tmp_path: Path, password: str, is_right: bool
) -> None:
    async with open_bench(tmp_path) as bench:
        bench.check.gate.clear()
        asking = [asyncio.create_task(bench.judge("ci", password)) for _ in range(20)]
        await bench.check.wait_begun()
        bench.check.gate.set()
        assert await asyncio.gather(*asking) == [is_right] * 20
        assert bench.check.count == 1


async def test_a_check_goes_on_and_counts_when_who_asked_has_left(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        bench.check.gate.clear()
        asking = asyncio.create_task(bench.judge("ci", "right"))
        await bench.check.wait_begun()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        again = asyncio.create_task(bench.judge("ci", "right"))
        await asyncio.sleep(0)
        bench.check.gate.set()
        assert await again
        assert bench.check.count == 1


async def test_guesses_run_out_even_if_made_all_at_once(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        guesses = [bench.judge("ci", f"guess {number}") for number in range(MAX_PER_USER * 3)]
        results = await asyncio.gather(*guesses, return_exceptions=True)
        turns = bench.logins._turns._value
        assert MAX_PER_USER <= results.count(False) < MAX_PER_USER + turns
        assert bench.check.count == results.count(False)
        with pytest.raises(LoginsLimited):
            await bench.judge("ci", "right")
        # Others are not concerned.
        assert await bench.judge("bob", "his")
        assert await bench.judge("ci", "right", OTHER)
        # Neither is who has once logged in, from wherever.
        assert await bench.judge("ci", "right")


async def test_the_limit_ends_with_its_window(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        for number in range(MAX_PER_USER):
            assert not await bench.judge("ci", f"guess {number}")
        bench.clock.now += WINDOW_S / 2
        with pytest.raises(LoginsLimited) as caught:
            await bench.judge("ci", "right")
        assert caught.value.retry_after_s == WINDOW_S / 2
        bench.clock.now += WINDOW_S / 2
        assert await bench.judge("ci", "right")


async def test_a_changed_password_counts_with_the_next_look(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        assert await bench.judge("ci", "right")
        assert not await bench.judge("ci", "new")
        write_accounts(bench.path, ci="new")
        assert bench.knows("ci", "right")  # the file was looked at just now
        bench.clock.now += LOOK_S
        assert not bench.knows("ci", "right")
        assert not await bench.judge("ci", "right")
        assert await bench.judge("ci", "new")


async def test_a_user_who_is_taken_out_is_out(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        assert await bench.judge("ci", "right")
        bench.change(bob="his")
        assert not await bench.judge("ci", "right")
        bench.change(bob="his", ci="right")
        assert await bench.judge("ci", "right")


async def test_users_whose_line_stays_are_not_checked_again(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        assert await bench.judge("ci", "right")
        assert not await bench.judge("bob", "wrong")
        bench.change(ci="right", bob="his", eve="new here")
        assert await bench.judge("ci", "right")
        assert bench.knows("ci", "right")
        assert not await bench.judge("bob", "wrong")
        assert bench.check.users == ["ci", "bob"]


async def test_a_judgement_by_a_list_that_is_gone_is_not_remembered(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        bench.check.gate.clear()
        asking = asyncio.create_task(bench.judge("ci", "right"))
        await bench.check.wait_begun()
        bench.change(ci="new")
        assert not await bench.logins.judge(b"Bearer x", HOST)  # has the file read
        bench.check.gate.set()
        await asking
        assert not bench.knows("ci", "right")
        assert not await bench.judge("ci", "right")


@pytest.mark.parametrize("harm", ["malformed", "missing"])
async def test_a_file_that_goes_bad_is_logged_once_and_the_former_accounts_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    async with open_bench(tmp_path) as bench:
        assert await bench.judge("ci", "right")
        if harm == "malformed":
            bench.path.write_text("ci:new\n")
        else:
            bench.path.unlink()
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                bench.clock.now += LOOK_S
                assert await bench.judge("ci", "right")
                assert bench.knows("ci", "right")
        (record,) = caplog.records
        expected = "line 1: the hash is not bcrypt's" if harm == "malformed" else "No such file"
        assert f"{bench.path}: {expected}" in record.getMessage()
        bench.change(ci="new")
        assert not await bench.judge("ci", "right")
        assert await bench.judge("ci", "new")


async def test_a_failed_login_is_logged_without_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_bench(tmp_path) as bench:
        await bench.judge("ci", "hunter2")
        await bench.judge("hunter3", "hunter2", OTHER)
        text = caplog.text
        assert f"login failed remote={HOST} user=ci suppressed=0" in text
        assert f"login failed remote={OTHER} user=unknown suppressed=0" in text
        assert "hunter" not in text


async def test_what_is_remembered_is_bounded_and_is_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_REMEMBERED", 2)
    async with open_bench(tmp_path) as bench:
        for spaces in range(4):
            field = basic("ci", "right").replace(" ", " " * (spaces + 1)).encode()
            assert await bench.logins.judge(field, HOST)
            assert not await bench.judge("ci", f"wrong {spaces}")
            kept = [*bench.logins._right, *bench.logins._wrong]
            assert all(len(key) == 64 and field not in key for key in kept)
        assert (len(bench.logins._right), len(bench.logins._wrong)) == (2, 2)


async def test_waiting_checks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 2)
    async with open_bench(tmp_path) as bench:
        bench.check.gate.clear()
        asking = [asyncio.create_task(bench.judge("ci", f"guess {number}")) for number in range(3)]
        await bench.check.wait_begun()
        bench.check.gate.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert results[:2] == [False, False]
        assert isinstance(results[2], LoginsLimited)


async def test_closing_ends_the_checks(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        bench.check.gate.clear()
        asking = asyncio.create_task(bench.judge("ci", "right"))
        await bench.check.wait_begun()
        await bench.logins.aclose()
        with pytest.raises(UpstreamUnavailable):
            await asking
