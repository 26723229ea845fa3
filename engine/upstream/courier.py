"""A request with its redirects.

Invariant: `Authorization` reaches the origin (scheme, host, port) it is meant for and no other;
once dropped it stays dropped. Cookies do not exist, a step from https to http is refused.
"""

from dataclasses import dataclass

import aiohttp
from yarl import URL

from engine.errors import UpstreamError, UpstreamProtocolError
from engine.upstream.client import Client, map_faults, place_of
from engine.upstream.kinds import Counts, Kind
from engine.upstream.limits import Limits
from engine.upstream.reply import next_hop, origin_of

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `range` is a Range header."""

    kind: Kind
    method: str
    url: URL
    authorization: str | None = None
    range: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The last response, its body unread. `is_foreign`: of another origin than the request's."""

    response: aiohttp.ClientResponse
    is_foreign: bool

    @property
    def place(self) -> str:
        """Who answered, for messages."""
        return place_of(self.response.url)


class Courier:
    """Sends requests, follows their redirects, counts each."""

    def __init__(self, client: Client, limits: Limits, counts: Counts) -> None:
        self._client = client
        self._limits = limits
        self._counts = counts

    async def send(self, request: Request) -> Reply:
        """Give the first response that is no redirect; the caller closes it.

        Raises `UpstreamUnavailable` or `UpstreamProtocolError`. The caller bounds the time.
        """
        url, is_foreign = request.url, False
        for _ in range(self._limits.max_redirects + 1):
            response = await self._send_once(request, url, is_foreign=is_foreign)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return Reply(response, is_foreign)
            await read_body(response, self._limits.max_error_bytes)
            url = next_hop(url, location)
            is_foreign = is_foreign or origin_of(url) != origin_of(request.url)
        raise UpstreamProtocolError(
            f"{place_of(request.url)}: more than {self._limits.max_redirects} redirects"
        )

    async def _send_once(
        self, request: Request, url: URL, *, is_foreign: bool
    ) -> aiohttp.ClientResponse:
        headers = {"Range": request.range} if request.range else {}
        if request.authorization and not is_foreign:
            headers["Authorization"] = request.authorization
        try:
            response = await self._client.request(request.method, url, headers)
        except UpstreamError:
            self._counts.requests[request.kind, "error"] += 1
            raise
        self._counts.requests[request.kind, str(response.status)] += 1
        return response


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a small body; what is left is dropped with its connection. Closes the response.

    At most one piece more than `max_bytes` is returned: callers compare the length if they mind.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        with map_faults(place_of(response.url)):
            while size <= max_bytes and (piece := await response.content.readany()):
                pieces.append(piece)
                size += len(piece)
    finally:
        # Returns the connection to the pool where the body was read to its end.
        response.close()
    return b"".join(pieces)
