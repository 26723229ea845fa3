"""The status page: one document that is the same for everybody, and asks the API for the rest.

It lies in `page/` in parts, for those who read it, and leaves here in one piece.
Invariant: it runs no code and takes no style but its own, whose hashes are in its policy, talks to
nobody but this port, and cannot be framed; so text that came from outside stays text.
Source: Content Security Policy Level 3 §6, §8.
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from server.exchange import Exchange
from server.response import build_head, content_length

_SCRIPTS = ("format.js", "dom.js", "clients.js", "explain.js", "status.js")
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def read_page() -> bytes:
    """Read the document from the package, style and scripts put in their places."""
    folder = files("server").joinpath("page")
    script = b"".join(folder.joinpath(name).read_bytes() for name in _SCRIPTS)
    style = folder.joinpath("status.css").read_bytes()
    page = folder.joinpath("status.html").read_bytes()
    page = page.replace(b"<style></style>", b"<style>\n%b</style>" % style)
    return page.replace(b"<script></script>", b"<script>\n%b</script>" % script)


def make_policy(page: bytes) -> str:
    """Make the policy that allows what stands in `page` itself. Pure."""
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for name, text in _INLINE.findall(page):
        hashes[name].append(f"'sha256-{b64encode(sha256(text).digest()).decode()}'")
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(hashes[b'script'])}",
            f"style-src {' '.join(hashes[b'style'])}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


class StatusPage:
    """Sends the page."""

    def __init__(self) -> None:
        self._body = read_page()
        self._head = build_head(
            200,
            [
                ("Content-Type", "text/html; charset=utf-8"),
                content_length(len(self._body)),
                ("Content-Security-Policy", make_policy(self._body)),
                ("Cross-Origin-Opener-Policy", "same-origin"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
                # A newer server's page asks its own API.
                ("Cache-Control", "no-cache"),
            ],
        )

    def send(self, exchange: Exchange) -> None:
        """Answer with it."""
        exchange.send(self._head, b"" if exchange.method == b"HEAD" else self._body)
