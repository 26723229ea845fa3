"""The ways to a running mirror: its control socket on this machine, or its debug port anywhere.

Invariant: commands do not know which way they go. What cannot be reached, or refuses, is a
`CacheError` that says what to do.
"""

import http.client
import logging
import os
import select
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

import click
import msgspec

from engine.errors import CacheError
from engine.layout import Layout
from server.control_messages import (
    Command,
    Drain,
    Draining,
    Failed,
    Overview,
    Reply,
    Warm,
    Warming,
)
from server.facts import Facts
from tools.control_client import ActFailed, iter_replies

T = TypeVar("T")
# A warm says something twice a second; a status may wait for a first reading of the index.
_PATIENCE_S = 30.0
_PAUSE_S = 0.2


logger = logging.getLogger(__name__)


class NotRunning(CacheError):
    """Nobody is there."""


class Door(Protocol):
    """A way to a running mirror."""

    def overview(self) -> Facts:
        """Ask for all that there is to see. Raises `CacheError`."""

    def warm(self, command: Warm) -> Generator[Warming, None, None]:
        """Warm one reference; tell how far it is. Close it. Raises `CacheError`."""

    def drain(self) -> Draining:
        """Have it stop. Raises `CacheError`."""

    def wait_gone(self, pid: int, timeout_s: float) -> bool:
        """Wait for the end of the server that said it was `pid`; False where it is still there."""


class SocketDoor:
    """By `control.sock` of a data directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def overview(self) -> Facts:
        """See `Door`."""
        return _expect(Facts, self._ask(Overview()))

    def warm(self, command: Warm) -> Generator[Warming, None, None]:
        """See `Door`."""
        for reply in self._iter_replies(command):
            yield _expect(Warming, reply)

    def drain(self) -> Draining:
        """See `Door`."""
        return _expect(Draining, self._ask(Drain()))

    def wait_gone(self, pid: int, timeout_s: float) -> bool:
        """See `Door`: the process is watched, for the socket goes before the cache is closed."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([process], [], [], timeout_s)[0])
        finally:
            os.close(process)

    def _ask(self, command: Command) -> Reply:
        (reply,) = self._iter_replies(command)
        return reply

    def _iter_replies(self, command: Command) -> Iterator[Reply]:
        replies = iter_replies(self._layout, command)
        if replies is None:
            raise NotRunning(f"no server runs on {self._layout.root}")
        return replies


class UrlDoor:
    """By the debug port of a mirror. `token` None: only what is open to everybody."""

    def __init__(self, url: str, token: str | None) -> None:
        self._parts = _split(url)
        self._where = f"{self._parts.scheme}://{self._parts.netloc}"
        self._fields = {} if token is None else {"Authorization": f"Bearer {token}"}

    def overview(self) -> Facts:
        """See `Door`."""
        return self._decode(b"".join(self._iter_lines("GET", "status")), Facts)

    def warm(self, command: Warm) -> Generator[Warming, None, None]:
        """See `Door`."""
        query = [("ref", command.ref), *(("platform", each) for each in command.platforms)]
        if command.is_for_all:
            query.append(("all_platforms", "true"))
        for line in self._iter_lines("POST", f"warm?{urlencode(query)}"):
            yield self._decode(line, Warming)

    def drain(self) -> Draining:
        """See `Door`."""
        return self._decode(b"".join(self._iter_lines("POST", "drain")), Draining)

    def wait_gone(self, pid: int, timeout_s: float) -> bool:
        """See `Door`: it is gone when nobody listens, or somebody else does."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                if self.overview().server.pid != pid:
                    return True
            except NotRunning:
                return True
            except ActFailed as exc:
                logger.debug("not reached cause=%s", exc)
            time.sleep(_PAUSE_S)
        return False

    def _decode(self, text: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError as exc:
            # A mirror that ends cuts its answer; another server answers anything.
            raise ActFailed(f"{self._where}: no answer of a mirror's debug port: {exc}") from exc

    def _iter_lines(self, method: str, target: str) -> Iterator[bytes]:
        where = self._where
        is_tls = self._parts.scheme == "https"
        make = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        path = f"{self._parts.path.rstrip('/')}/api/v1/{target}"
        with closing(
            make(self._parts.hostname or "", self._parts.port, timeout=_PATIENCE_S)
        ) as connection:
            try:
                connection.request(method, path, headers=self._fields)
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    raise ActFailed(f"{where}: {_reason_of(response)}")
                while line := response.readline():
                    yield line
            except ConnectionRefusedError as exc:
                raise NotRunning(f"{where}: nobody listens there") from exc
            except (OSError, http.client.HTTPException) as exc:
                raise ActFailed(f"{where} broke off: {exc!r}") from exc


def _split(url: str) -> SplitResult:
    """Take a debug port's URL apart. Raises `click.UsageError`."""
    with suppress(ValueError):
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and parts.port != 0
        if is_http and parts.hostname and not parts.username:
            return parts
    raise click.UsageError(f"--url: {url!r} is no URL such as http://mirror:5001")


def _reason_of(response: http.client.HTTPResponse) -> str:
    """Say why it was refused, by its own words if it has any."""
    try:
        return msgspec.json.decode(response.read(), type=dict[str, str])["error"]
    except (msgspec.DecodeError, KeyError):
        return f"it answered {response.status}; is this a mirror's debug port?"


def _expect(kind: type[T], reply: Reply) -> T:
    if isinstance(reply, Failed):
        raise ActFailed(reply.error)
    if not isinstance(reply, kind):
        raise ActFailed(f"the server answered what was not asked: {type(reply).__name__}")
    return reply
