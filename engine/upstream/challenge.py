"""`WWW-Authenticate`, and whom credentials may be shown to: pure.

Invariant: credentials go to upstream's own host, or to a token realm that shares its registrable
domain, and never from https to http; whatever a challenge says otherwise is refused.
Source: RFC 9110 §11.6.1; distribution docs/content/spec/auth/token.md; CVE-2026-33540.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import cache

from publicsuffixlist import PublicSuffixList
from yarl import URL

from engine.errors import UpstreamProtocolError
from engine.names import Repository
from engine.upstream.shown import show_url

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Unquoted values are more liberal than the RFC: some registries leave URLs unquoted.
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(_TOKEN)
_GAP = re.compile(r"[\s,]*")
_JUNK = re.compile(r"[^,]*")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: scheme in lower case, parameters by lower-case name."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Grant:
    """What to ask a token service for; the key that tokens are cached by."""

    realm: str
    service: str
    scopes: tuple[str, ...]


def parse_challenges(header: str) -> list[Challenge]:
    """Read all challenges of one or more joined headers; what is malformed is skipped."""
    challenges: list[Challenge] = []
    at = 0
    while at < len(header):
        at = _next(header, at)
        if found := _PARAMETER.match(header, at):
            name, quoted, bare = found.groups()
            value = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            if challenges:
                challenges[-1].parameters.setdefault(name.lower(), value)
        elif found := _SCHEME.match(header, at):
            challenges.append(Challenge(found.group().lower(), {}))
        else:
            found = _JUNK.match(header, at)
        at = found.end() if found else len(header)
    return challenges


def _next(header: str, at: int) -> int:
    gap = _GAP.match(header, at)
    return gap.end() if gap else at


def grant_of(challenge: Challenge, repository: Repository) -> Grant:
    """Read a Bearer challenge; without a scope, pulling from `repository` is meant."""
    scope = challenge.parameters.get("scope") or f"repository:{repository}:pull"
    service = challenge.parameters.get("service", "")
    return Grant(challenge.parameters.get("realm", ""), service, tuple(scope.split()))


def check_realm(realm: str, upstream: URL) -> URL:
    """Give the realm's URL if it may be asked; raises `UpstreamProtocolError`.

    It is refused to anonymous upstreams too: a mirror sends no requests where a challenge likes.
    """
    shown = show_url(realm)
    try:
        url = URL(realm)
        host = url.host  # it is decoded only now, and may be no IDNA
    except ValueError as exc:
        raise UpstreamProtocolError(f"{upstream.host}: token realm {shown} is no URL") from exc
    if url.scheme not in ("http", "https") or not host or url.user or url.password:
        raise UpstreamProtocolError(f"{upstream.host}: token realm {shown} is not usable")
    if upstream.scheme == "https" and url.scheme != "https":
        raise UpstreamProtocolError(f"{upstream.host}: token realm {shown} is not https")
    if not is_same_site(host, upstream.host or ""):
        raise UpstreamProtocolError(
            f"{upstream.host}: token realm {shown} is at a foreign host; nothing was sent to it"
        )
    return url


def is_same_site(one: str, other: str) -> bool:
    """Whether two hosts are equal or share a registrable domain; IP addresses must be equal."""
    one, other = one.lower().rstrip("."), other.lower().rstrip(".")
    if one == other:
        return True
    if _is_address(one) or _is_address(other):
        return False
    site = _suffixes().privatesuffix(one)
    return site is not None and site == _suffixes().privatesuffix(other)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
