"""Plain requests to a mirror, one connection each, for tests that look at single answers."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.images import sha256_of

_TIMEOUT_S = 60.0
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    is_cut: bool  # the connection ended before the promised length

    @property
    def digest(self) -> str:
        """The digest of the body."""
        return sha256_of(self.body)

    @property
    def code(self) -> str:
        """The first OCI error code; empty where the body has none."""
        try:
            errors = json.loads(self.body)["errors"]
        except (ValueError, KeyError, TypeError):
            return ""
        return str(errors[0]["code"])


def ask(
    address: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    source: str = "",
) -> Answer:
    """Make one request to `address` (host:port) and read the response to its end.

    `source`: the address of this machine's to come from. Raises `ConnectionError` where there is
    no answer.
    """
    own = (source, 0) if source else None
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S, source_address=own)
    try:
        connection.request(method, target, headers=dict(headers or {}))
        return read_answer(connection.getresponse())
    finally:
        connection.close()


def read_answer(response: http.client.HTTPResponse) -> Answer:
    """Read a response whose head has arrived to its end, or to where it is cut."""
    lower = {name.lower(): value for name, value in response.getheaders()}
    body, is_cut = _read(response)
    return Answer(response.status, lower, body, is_cut)


def _read(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Read what comes; tell whether the connection ended or was reset before all had."""
    pieces: list[bytes] = []
    try:
        while piece := response.read(_PIECE_BYTES):
            pieces.append(piece)
    except (http.client.IncompleteRead, ConnectionResetError):
        return b"".join(pieces), True
    return b"".join(pieces), bool(response.length)
