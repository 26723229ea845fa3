"""What an htpasswd file says, and what a client says in `Authorization: Basic`. Pure.

Invariant: an account is a user name and a well-formed bcrypt hash; a line that is anything else is
refused, so nobody is locked out by an entry that could never have worked.
Secrets are in no message and no repr.
Source: Apache's htpasswd (`-B`), read as distribution reads it: blank lines and lines that begin
with `#` are skipped, of two lines for a user the last one counts; RFC 7617 for `Basic`.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import bcrypt

# htpasswd's own limit of a user name. It bounds what is kept of failed logins, too.
_MAX_USER_BYTES = 255
# bcrypt looks at no more, and so do htpasswd and distribution; the library refuses longer ones.
_PASSWORD_BYTES = 72
# Version, cost, 16 bytes of salt, 23 of hash; of their last digits some bits are always zero.
# `$2x$` is left out: it marks hashes of a broken implementation.
_HASH = re.compile(
    rb"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$"
    rb"[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
)
_COST = slice(4, 6)


class MalformedLine(Exception):
    """A line of an htpasswd file that is no account. `number` counts from 1."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number = number
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password as a client sent them, the password to what bcrypt looks at."""

    user: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Accounts:
    """bcrypt hashes by user name."""

    hashes: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)

    def admits(self, credentials: Credentials) -> bool:
        """Check a password. Takes as long as bcrypt is meant to, without holding the GIL.

        An unknown user is checked against the costliest hash and refused whatever comes of it, so
        that time does not tell which users there are.
        """
        if not self.hashes:
            return False
        known = self.hashes.get(credentials.user)
        checked = known or max(self.hashes.values(), key=lambda hashed: hashed[_COST])
        return bcrypt.checkpw(credentials.password, checked) and known is not None


def parse_accounts(data: bytes) -> Accounts:
    """Read the content of an htpasswd file. Raises `MalformedLine`."""
    hashes: dict[bytes, bytes] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        entry = line.strip()
        if entry and not entry.startswith(b"#"):
            user, hashed = _parse_entry(number, entry)
            hashes[user] = hashed
    return Accounts(hashes)


def parse_credentials(authorization: bytes) -> Credentials | None:
    """Read an `Authorization` field; None where it cannot name an account."""
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(token.strip(), validate=True)
    except binascii.Error:
        return None
    user, colon, password = decoded.partition(b":")
    # Some clients send an empty name for "nobody" (podman does); a NUL ends a password in C.
    if not colon or not 0 < len(user) <= _MAX_USER_BYTES or b"\0" in password:
        return None
    return Credentials(user, password[:_PASSWORD_BYTES])


def _parse_entry(number: int, entry: bytes) -> tuple[bytes, bytes]:
    user, colon, hashed = entry.partition(b":")
    if not colon:
        raise MalformedLine(number, "no colon between a user and a hash")
    if not 0 < len(user) <= _MAX_USER_BYTES:
        raise MalformedLine(number, f"the user has not 1 to {_MAX_USER_BYTES} bytes")
    if not _HASH.fullmatch(hashed):
        raise MalformedLine(number, "the hash is not bcrypt's (htpasswd -B makes those)")
    return user, hashed
