"""A file of accounts, a bcrypt that is counted and can be held, and a clock that is set by hand."""

import asyncio
import threading
from base64 import b64encode
from functools import cache
from pathlib import Path

import bcrypt

from server.htpasswd import Accounts, Credentials

_LOWEST_COST = 4


@cache
def hash_of(password: str) -> str:
    """Hash a password at the lowest cost."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(_LOWEST_COST)).decode()


def write_accounts(path: Path, **passwords: str) -> None:
    """Put a file of these accounts in place at once, as a careful editor would."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text("".join(f"{u}:{hash_of(p)}\n" for u, p in passwords.items()))
    beside.replace(path)


def basic(user: str, password: str) -> str:
    """Make an `Authorization` field."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


class CountedCheck:
    """`Accounts.admits`, counted. While `gate` is clear, a check waits in its thread."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self._begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, accounts: Accounts, credentials: Credentials) -> bool:
        self.users.append(credentials.user.decode())
        self._begun.set()
        assert self.gate.wait(30)
        return accounts.admits(credentials)

    async def wait_begun(self) -> None:
        """Wait until a check has begun."""
        assert await asyncio.to_thread(self._begun.wait, 30)

    @property
    def count(self) -> int:
        return len(self.users)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now
