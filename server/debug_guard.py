"""Who may see and do what at the debug port. Pure.

Invariant: without the operator's token nothing is ever changed; facts are given without it only
where the debug port listens on loopback or a unix socket alone, and then only to a request whose
Host is an address or `localhost`, so that a web page which has its own name lead here (DNS
rebinding) reads nothing. A token comes in `Authorization`, which no browser sends by itself, and
no answer allows another origin anything (no CORS): so there is no request to be forged.
Source: RFC 6750 §2.1, §3 (bearer tokens); RFC 9110 §7.2 (Host).
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable
from hashlib import sha256
from http import HTTPStatus

from server.config_http import find_exposed
from server.settings import Listener

_SCHEME = re.compile(rb"bearer +", re.ASCII | re.IGNORECASE)
_PORT = re.compile(r":\d+$", re.ASCII)


class Refused(Exception):
    """A request that is not carried out, and what to do about it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """Judges requests. `token` None: nobody may act."""

    def __init__(self, token: str | None, listeners: Iterable[Listener]) -> None:
        self._hash = None if token is None else sha256(token.encode()).digest()
        self._is_local = not find_exposed(tuple(listeners))

    def admit_reader(self, authorization: bytes | None, host: bytes | None) -> None:
        """Let somebody see facts, or raise `Refused`."""
        if self._hash is not None and authorization is not None:
            self._check(authorization)
        elif not self._is_local:
            raise self._missing("facts are given on loopback only")
        elif not is_address(host):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "name this port by its address or as localhost; by another name, "
                "the operator's token is needed",
            )

    def admit_actor(self, authorization: bytes | None) -> None:
        """Let somebody change something, or raise `Refused`."""
        if self._hash is None or authorization is None:
            raise self._missing("nothing is changed")
        self._check(authorization)

    def _missing(self, why: str) -> Refused:
        if self._hash is None:
            return Refused(
                HTTPStatus.FORBIDDEN,
                f"no operator's token is configured (http.debug.tokenfile): without one, {why}",
            )
        return Refused(
            HTTPStatus.UNAUTHORIZED,
            f"the operator's token is needed (Authorization: Bearer …): without it, {why}",
        )

    def _check(self, authorization: bytes) -> None:
        assert self._hash is not None
        scheme = _SCHEME.match(authorization)
        token = authorization[scheme.end() :] if scheme else b""
        # Hashes have one length: comparing them tells nothing of the token's.
        if not hmac.compare_digest(sha256(token).digest(), self._hash):
            raise Refused(HTTPStatus.UNAUTHORIZED, "this is not the operator's token")


def is_address(host: bytes | None) -> bool:
    """Whether a Host field names this machine by address or as localhost, with or without a port.

    None, from a client of HTTP/1.0, is no browser's.
    """
    if host is None:
        return True
    name = _PORT.sub("", host.decode("latin-1").lower())
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
