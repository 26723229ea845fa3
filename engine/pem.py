"""Certificates and keys in PEM files, loaded into a context of `ssl`.

Invariant: what cannot be used is a `PemError` that names the file, what is wrong with it and what
would be right; nobody is ever asked for a password. All of it blocks, on files only.
"""

import ssl
from enum import Enum
from pathlib import Path

# OpenSSL's reasons: another key of the same kind, and one of another kind.
_MISMATCHES = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Role(Enum):
    """What a file is for."""

    CERTIFICATE = "certificate"
    KEY = "key"
    AUTHORITY = "ca"


class PemError(Exception):
    """A file that cannot be used."""

    def __init__(self, role: Role, path: str, reason: str, expected: str) -> None:
        super().__init__(f"{role.value} {path}: {reason}, expected {expected}")
        self.role = role
        self.path = path
        self.reason = reason
        self.expected = expected


class _Encrypted(Exception):
    """The key wants a password, and there is nobody to ask."""


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Show this certificate, its CAs behind it in the file, to the other side."""
    read(Role.CERTIFICATE, certificate)
    read(Role.KEY, key)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _Encrypted as exc:
        raise PemError(Role.KEY, key, "it is encrypted", "a key without a password") from exc
    except ssl.SSLError as exc:
        if exc.reason in _MISMATCHES:
            reason = "it is another certificate's key"
            raise PemError(Role.KEY, key, reason, f"the key of {certificate}") from exc
        reason = f"it is no key in PEM, or {certificate} is no certificate"
        raise PemError(Role.KEY, key, reason, "a private key in PEM") from exc


def add_authorities(context: ssl.SSLContext, path: str) -> None:
    """Trust the CAs in this file as well."""
    text = read(Role.AUTHORITY, path).decode("ascii", "replace")
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as exc:
        expected = "CA certificates in PEM"
        raise PemError(Role.AUTHORITY, path, "it holds no certificates", expected) from exc


def read(role: Role, path: str) -> bytes:
    """Read a file."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as exc:  # a NUL in the path is a ValueError
        reason = getattr(exc, "strerror", None) or str(exc)
        raise PemError(role, path, reason.lower(), "a readable file") from exc


def _refuse_password() -> str:
    raise _Encrypted
