"""Which HTTP proxy a URL is asked through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

As in Go, loopback is never asked through one. The environment is read once, at the start.
"""

from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from engine.errors import UpstreamUnavailable
from engine.upstream.challenge import is_loopback
from engine.upstream.credentials import Credential
from engine.upstream.shown import show_url


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; its login is apart, so that the URL can be shown."""

    url: URL
    credential: Credential | None


class Proxies:
    """The environment's proxies."""

    def __init__(self) -> None:
        self._by_scheme = getproxies()

    def find(self, url: URL) -> Proxy | None:
        """Choose the proxy for a URL; None = ask directly. Raises `UpstreamUnavailable`."""
        host = url.host or ""
        text = self._by_scheme.get(url.scheme)
        if not text or is_loopback(host) or proxy_bypass(host):
            return None
        try:
            proxy = URL(text if "://" in text else f"http://{text}")
        except ValueError as exc:
            message = f"{host}: {url.scheme.upper()}_PROXY is no URL: {show_url(text)}"
            raise UpstreamUnavailable(message) from exc
        if proxy.user is None:
            return Proxy(proxy, None)
        return Proxy(proxy.with_user(None), Credential(proxy.user, proxy.password or ""))
