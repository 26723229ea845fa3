"""Whose credentials are right: by the file of accounts, and from memory once they were checked.

Invariant: credentials are judged by the file as it was at most `LOOK_S` ago, or by the last good
state of a file that has become unusable. What is remembered is a keyed hash of the `Authorization`
field, its key known to this process alone; a judgement is forgotten when its account changes.

bcrypt is slow on purpose, so it runs in threads, on at most half of the processors, and once for
all who send the same credentials; whoever leaves meanwhile is counted all the same. Refusals are
remembered, too: the jobs of a fleet that still have yesterday's password neither cost a check each
nor use up the attempts of those that have today's.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from engine.fault_log import FaultLog
from engine.single_flight import SingleFlight
from server.accounts_file import AccountsError, Stamp, read_accounts, take_stamp
from server.htpasswd import Accounts, Credentials, parse_credentials
from server.login_limit import LoginLimit, find_source
from server.refusals import LoginsLimited

logger = logging.getLogger(__name__)

LOOK_S = 1.0
_UNREAD: Stamp = (-1, -1, -1, -1)  # of no file, and not of a missing one
_MAX_REMEMBERED = 4_096  # of right credentials, and of wrong ones
_MAX_WAITING = 1_000  # checks, of clients that may have left long ago
_FULL_RETRY_S = 5.0

Check = Callable[[Accounts, Credentials], bool]


class Logins:
    """Judges `Authorization` fields. Whoever made it closes it.

    `check` may block: it runs in a thread. `clock` tells seconds and never goes back.
    """

    def __init__(
        self,
        path: Path,
        *,
        check: Check = Accounts.admits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file. Blocks; raises `AccountsError`."""
        self._path = path
        self._check = check
        self._clock = clock
        # The file: which state of it `accounts` is, and which was seen last
        self._stamp: Stamp = take_stamp(path)
        self.accounts = read_accounts(path)
        self._seen = self._stamp
        self._look_at = clock() + LOOK_S
        self._reloading = asyncio.Lock()
        # Judgements: a field's hash to its user
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._right: dict[bytes, bytes] = {}
        self._wrong: dict[bytes, bytes] = {}
        # Checks
        self._turns = asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2))
        self._checks: SingleFlight[tuple[bytes, str], bool] = SingleFlight()
        self._limit = LoginLimit()
        self._faults = FaultLog()

    def move(self, path: Path) -> None:
        """Judge by another file from now on; it is read by who asks next."""
        if path != self._path:
            self._path = path
            self._stamp = _UNREAD
            self._look_at = self._clock()

    def find_user(self, authorization: bytes) -> bytes | None:
        """Find whose the field is, if it is known to be right. None may also mean: ask `judge`."""
        return self._right.get(self._hash(authorization)) if self._is_current() else None

    async def judge(self, authorization: bytes, address: str) -> bool:
        """Check the field as sent from `address`. Raises `LoginsLimited`.

        Safe to cancel: a check that has begun goes on, and counts if it fails.
        """
        await self._reload_if_changed()
        key = self._hash(authorization)
        if key in self._right or key in self._wrong:
            return key in self._right
        credentials = parse_credentials(authorization)
        if credentials is None:
            return False
        if len(self._checks) >= _MAX_WAITING:
            raise LoginsLimited(_FULL_RETRY_S)
        # The address is part of the key, since whoever is limited by it must be so alone.
        is_right, _ = await self._checks.run(
            (key, address), lambda: self._judge_in_turn(key, credentials, address)
        )
        return is_right

    async def aclose(self) -> None:
        """Stop all checks; a thread that is at one ends by itself."""
        await self._checks.aclose()

    async def _judge_in_turn(self, key: bytes, credentials: Credentials, address: str) -> bool:
        async with self._turns:
            if key in self._right or key in self._wrong:  # from another address, meanwhile
                return key in self._right
            self._check_limit(credentials, address)
            accounts = self.accounts
            is_right = await asyncio.to_thread(self._check, accounts, credentials)
            if not is_right:
                self._note_failure(credentials, address)
            if accounts is self.accounts:
                _remember(self._right if is_right else self._wrong, key, credentials.user)
            return is_right

    def _check_limit(self, credentials: Credentials, address: str) -> None:
        try:
            self._limit.check(address, credentials.user, self._clock())
        except LoginsLimited:
            self._log("logins refused after too many failures", credentials, address)
            raise

    def _note_failure(self, credentials: Credentials, address: str) -> None:
        self._limit.note_failure(address, credentials.user, self._clock())
        self._log("login failed", credentials, address)

    def _log(self, event: str, credentials: Credentials, address: str) -> None:
        suppressed = self._faults.admit((event, find_source(address)), self._clock())
        if suppressed is not None:
            # A name that is no account's may be a password in the wrong place.
            is_account = credentials.user in self.accounts.hashes
            user = credentials.user.decode("ascii", "backslashreplace") if is_account else "unknown"
            logger.warning("%s remote=%s user=%s suppressed=%d", event, address, user, suppressed)

    def _hash(self, authorization: bytes) -> bytes:
        return hashlib.blake2b(authorization, key=self._key).digest()

    def _is_current(self) -> bool:
        """Whether `accounts` is what the file holds: a `stat` of it once in `LOOK_S`."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._seen = take_stamp(self._path)
        return self._seen == self._stamp

    async def _reload_if_changed(self) -> None:
        async with self._reloading:
            if self._is_current():
                return
            # Taken before the file is read: what is written meanwhile is another state.
            stamp = self._seen
            try:
                self._adopt(await asyncio.to_thread(read_accounts, self._path))
            except AccountsError as exc:
                logger.error("accounts unusable, the former ones stay: %s", exc)
            self._stamp = stamp

    def _adopt(self, accounts: Accounts) -> None:
        """Judge by `accounts` from now on; forget the judgements of users that differ in them."""
        old, new = self.accounts.hashes, accounts.hashes
        self._right = {k: user for k, user in self._right.items() if old.get(user) == new.get(user)}
        self._wrong = {k: user for k, user in self._wrong.items() if old.get(user) == new.get(user)}
        self.accounts = accounts
        logger.info("accounts read path=%s count=%d", self._path, len(new))


def _remember(judgements: dict[bytes, bytes], key: bytes, user: bytes) -> None:
    if len(judgements) >= _MAX_REMEMBERED:
        del judgements[next(iter(judgements))]
    judgements[key] = user
