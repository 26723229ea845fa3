"""The htpasswd file on disk: made where it is missing, looked at, read.

Invariant: a file that is there is never written. What cannot be read or understood is an
`AccountsError` that names the file; a directory in its place holds no account, since distribution
starts with one (Debian's configuration names one) and lets nobody in.
All of it blocks; looking is a single `stat`.
"""

import os
import secrets
from pathlib import Path
from typing import TypeAlias

import bcrypt

from server.htpasswd import Accounts, MalformedLine, parse_accounts

# distribution's name for the account that it makes, and its cost of the hash.
DEFAULT_USER = "docker"
_COST = 10
_PASSWORD_BYTES = 32

# Modification time, size and place: what tells one state of a file from another. None = no file.
Stamp: TypeAlias = tuple[int, int, int, int] | None


class AccountsError(Exception):
    """The file of accounts cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def take_stamp(path: Path) -> Stamp:
    """Look at the file. A symbolic link is followed, as its target is what gets swapped."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def read_accounts(path: Path) -> Accounts:
    """Read the file. Raises `AccountsError`, with the number of a line that is malformed."""
    try:
        return parse_accounts(path.read_bytes())
    except IsADirectoryError:
        return Accounts()
    except MalformedLine as exc:
        raise AccountsError(path, str(exc)) from exc
    except OSError as exc:
        raise AccountsError(path, exc.strerror or "cannot be read") from exc


def provision(path: Path) -> str | None:
    """Make a missing file with one account, `DEFAULT_USER`, and give its password; else None.

    Only the owner may read it. Missing directories are made. Raises `AccountsError`.
    """
    if os.path.lexists(path):
        return None
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(_COST)).decode()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{DEFAULT_USER}:{hashed}\n")
    except OSError as exc:
        raise AccountsError(path, f"cannot be made: {exc.strerror or exc}") from exc
    return password
