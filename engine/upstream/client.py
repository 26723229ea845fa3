"""The door to the network: one HTTP request at a time over pooled connections.

Invariant: nothing is sent but what is asked for (no cookies, no netrc, no client's headers, no
silent redirects), bodies arrive as they were sent, and every fault of the network comes out as an
`UpstreamError`. Must not know: registries, tokens, retries.
"""

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import aiohttp
from yarl import URL

from engine.descriptor import MANIFEST_TYPES
from engine.errors import NotAsked, UpstreamProtocolError, UpstreamUnavailable
from engine.upstream import trust
from engine.upstream.limits import Limits
from engine.upstream.proxies import Proxies
from engine.upstream.shown import show_fault


def _user_agent() -> str:
    try:
        return f"moorage/{version('moorage')}"
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "moorage"


HEADERS = {
    "Accept": ", ".join((*MANIFEST_TYPES, "*/*")),
    "Accept-Encoding": "identity",
    "User-Agent": _user_agent(),
}


class Client:
    """A session. It is opened by the first request and belongs to that request's loop."""

    def __init__(self, limits: Limits, context: ssl.SSLContext | None = None) -> None:
        """`context`: of TLS; None trusts whom the system trusts."""
        self.context = context
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._proxies = Proxies()

    async def request(
        self, method: str, url: URL, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Send one request and wait for the response's head; the caller closes the response.

        Redirects are not followed. The caller bounds the time. Raises `UpstreamUnavailable` or
        `UpstreamProtocolError`.
        """
        if self._is_closed:
            raise NotAsked("the mirror is stopping")
        proxy = self._proxies.find(url)
        login = {}
        if proxy is not None and proxy.credential is not None:
            login["Proxy-Authorization"] = proxy.credential.basic
        with map_faults(place_of(url)):
            return await self._open().request(
                method,
                url,
                # The proxy reads plain requests itself; for https it gets a CONNECT of its own.
                headers={**headers, **login} if url.scheme == "http" else headers,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=login,
                allow_redirects=False,
                ssl=True if self.context is None else self.context,
            )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many connections there are is bounded by the lanes.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=HEADERS,
                auto_decompress=False,
                read_bufsize=self._limits.read_buffer_bytes,
                # aiohttp's own trust_env would also send what is in ~/.netrc.
                trust_env=False,
            )
        return self._session

    async def aclose(self) -> None:
        """Close all connections; what is under way fails, and so does what comes after."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()


def place_of(url: URL) -> str:
    """Name a host for messages, with its port unless it is the scheme's own."""
    return url.host_port_subcomponent or ""


@contextmanager
def map_faults(place: str) -> Iterator[None]:
    """Translate what aiohttp raises; `place` is the host, for the message."""
    try:
        yield
    except aiohttp.ClientHttpProxyError as exc:
        message = f"{place}: the HTTP proxy answered {exc.status}"
        raise UpstreamUnavailable(message, upstream_status=exc.status) from exc
    except aiohttp.InvalidURL as exc:
        raise UpstreamProtocolError(f"{place}: not HTTP as it should be: an invalid URL") from exc
    except aiohttp.ClientResponseError as exc:
        message = f"{place}: not HTTP as it should be: {show_fault(exc.message)}"
        raise UpstreamProtocolError(message) from exc
    except UnicodeError as exc:
        # The resolver's, for a label that is empty or longer than 63 characters (RFC 1035 §2.3.4).
        raise UpstreamProtocolError(f"{place}: no host has such a name: {exc}"[:300]) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise UpstreamUnavailable(f"{place}: {describe(exc)}") from exc


def describe(exc: Exception) -> str:
    """Put a network fault in words that name what to look at."""
    tls_fault = _describe_tls(exc)
    if tls_fault is not None:
        return tls_fault
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return f"name does not resolve: {exc.os_error.strerror}"
        case aiohttp.ServerTimeoutError():
            return "connecting timed out"
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case aiohttp.ClientPayloadError():
            return "the body broke off"
        case socket.gaierror():
            return f"name does not resolve: {exc.strerror}"
        case OSError(errno=int() as number) if number > 0:
            return os.strerror(number).lower()
        case _:
            return str(exc) or type(exc).__name__


def _describe_tls(exc: Exception) -> str | None:
    """Put a fault of TLS in words; None for another."""
    match exc:
        # First, as it is an `SSLError` itself, but one that says nothing.
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLError() as error):
            return trust.describe(error)
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError() as error):
            return trust.describe(error)
        case ssl.SSLError():  # within a connection: TLS 1.3 refuses a client only then
            return trust.describe(exc)
        case aiohttp.ClientConnectorError(os_error=ConnectionError(errno=None)):
            return (
                "TLS failed: upstream hung up; does it want a client certificate (`certificate`)?"
            )
        case _:
            return None
