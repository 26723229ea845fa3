"""What the texts in a configuration mean: durations, sizes, shares, addresses, URLs, switches.

Invariant: each parser gives a checked value or raises `InvalidValue` saying what it expects; none
does I/O. Durations follow Go's `time.ParseDuration`, since that is what distribution reads; a
number without a unit is nanoseconds there, and so it is here.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple
from urllib.parse import urlsplit

from server.config_tree import InvalidValue, mask, show
from server.networks import parse_network as read_network
from server.settings import Listener

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, the micro sign
    "μs": 10**3,  # U+03BC, the Greek letter
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_MAX_NANOSECONDS = 2**63 - 1  # Go's Duration: about 292 years
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,19}", re.ASCII)

_BYTES = {"": 1, "b": 1} | {
    f"{letter}{suffix}".lower(): base**power
    for power, letter in enumerate("KMGTP", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024), ("i", 1024))
}
_MAX_BYTES = 2**63 - 1  # the largest file offset
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_HOST = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]"
_NAMESPACE = re.compile(rf"(?:{_HOST})(?::\d{{1,5}})?", re.ASCII)
_ADDRESS = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[\w.-]*)):(?P<port>\d{1,5})", re.ASCII
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2 token
_HEADER_VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?")
# These frame the response: a configured one would break it.
_OWN_HEADERS = frozenset({"connection", "content-length", "date", "transfer-encoding"})

_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


def parse_duration_s(text: str) -> float:
    """Read a Go duration such as `1h30m`, or a bare number of nanoseconds, as seconds."""
    expected = "a duration such as 168h, 1h30m or 250ms (a bare number is nanoseconds), 0 or more"
    body = text.strip().removeprefix("+")
    if _NUMBER.fullmatch(body):
        nanoseconds = Decimal(body)
    else:
        parts = _PART.findall(body)
        if not parts or "".join(number + unit for number, unit in parts) != body:
            raise InvalidValue(expected)
        nanoseconds = sum(
            (Decimal(number) * _NANOSECONDS[unit] for number, unit in parts), Decimal()
        )
    if not 0 <= nanoseconds <= _MAX_NANOSECONDS:
        raise InvalidValue(expected)
    return int(nanoseconds) / 10**9


def format_duration(duration_s: float) -> str:
    """Write a duration so that `parse_duration_s` reads it back."""
    nanoseconds = round(duration_s * 10**9)
    if not nanoseconds:
        return "0s"
    for unit in ("h", "m", "s", "ms"):
        count, rest = divmod(nanoseconds, _NANOSECONDS[unit])
        if not rest:
            return f"{count}{unit}"
    return f"{nanoseconds}ns"


class Share(NamedTuple):
    """Bytes, or a fraction of the file system: one of the two is None."""

    size_bytes: int | None
    fraction: float | None


def parse_size_bytes(text: str) -> int:
    """Read a size such as `50MiB` (of 1024) or `100GB` (of 1000), or a number of bytes."""
    match = _SIZE.fullmatch(text.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    size_bytes = Decimal(match[1]) * unit if match and unit else None
    if size_bytes is None or size_bytes > _MAX_BYTES:
        raise InvalidValue("a size such as 50MiB or 100GB, or a number of bytes")
    return int(size_bytes)


def parse_fraction(text: str) -> float:
    """Read a percentage from 0% to 100% as a fraction."""
    match = _PERCENT.fullmatch(text.strip())
    percent = Decimal(match[1]) if match else Decimal(-1)
    if not 0 <= percent <= 100:
        raise InvalidValue("a percentage from 0% to 100%")
    return float(percent / 100)


def format_fraction(fraction: float) -> str:
    """Write a fraction so that `parse_fraction` reads it back."""
    percent = (Decimal(repr(fraction)) * 100).normalize()
    return f"{percent:f}%"


def parse_share(text: str) -> Share:
    """Read a percentage of the file system, or a size."""
    try:
        if text.rstrip().endswith("%"):
            return Share(None, parse_fraction(text))
        return Share(parse_size_bytes(text), None)
    except InvalidValue as exc:
        raise InvalidValue("80% of the file system, a size such as 100GB, or bytes") from exc


def parse_bool(text: str) -> bool:
    """Read a YAML 1.1 boolean."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidValue("true or false")


def parse_int(text: str) -> int:
    """Read a decimal whole number, of either sign."""
    if not _NUMBER.fullmatch(text):
        raise InvalidValue("a whole number")
    return int(text)


def parse_count(text: str) -> int:
    """Read a whole number of at least one."""
    if not _NUMBER.fullmatch(text) or int(text) < 1:
        raise InvalidValue("a whole number, 1 or more")
    return int(text)


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser of a choice among lower-case words; case does not matter."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise InvalidValue(f"one of {', '.join(choices)}")
        return text.lower()

    return parse


def parse_address(text: str) -> Listener:
    """Read `HOST:PORT`, `:PORT` (all interfaces), `[IPV6]:PORT` or `unix:PATH`."""
    address = text.strip()
    if address.startswith("unix:") and len(address) > len("unix:"):
        return Listener(path=address.removeprefix("unix:"))
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise InvalidValue("HOST:PORT, :PORT, [IPV6]:PORT or unix:PATH")
    return Listener(match["ipv6"] or match["host"] or "", int(match["port"]))


def parse_url(text: str) -> str:
    """Check an upstream's base URL, and give it without a trailing slash."""
    expected = "a URL such as https://registry.example.com, without user, query or fragment"
    found = show(mask(text).partition("?")[0])
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise InvalidValue(expected, found) from exc
    is_plain = text.isascii() and text.isprintable() and " " not in text
    # urlsplit drops an empty query or fragment, so look at the text.
    has_extras = "@" in parts.netloc or "?" in text or "#" in text
    if not is_plain or has_extras or parts.scheme not in ("http", "https") or port == 0:
        raise InvalidValue(expected, found)
    if not _NAMESPACE.fullmatch(parts.netloc.lower()):
        raise InvalidValue(expected, found)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_namespace(text: str) -> str:
    """Read a registry's host as clients name it: `host[:port]` that no repository starts with.

    Without a dot or a port it could not be told from a first path component such as `library`.
    """
    name = text.lower()
    is_host = "." in name or ":" in name or name == "localhost"
    if not is_host or not _NAMESPACE.fullmatch(name):
        raise InvalidValue("a registry's host as clients name it, such as ghcr.io or host:5000")
    return name


def parse_header_name(text: str) -> str:
    """Check a header's name; those that frame a response are refused."""
    if not _HEADER_NAME.fullmatch(text) or text.lower() in _OWN_HEADERS:
        raise InvalidValue("the name of a header that does not frame the response")
    return text


def parse_header_value(text: str) -> str:
    """Check a header's value: one line of Latin-1 (RFC 9110 §5.5)."""
    if not _HEADER_VALUE.fullmatch(text):
        raise InvalidValue("a header value: one line of printable Latin-1")
    return text


def parse_path_prefix(text: str) -> str:
    """Read the path that all requests begin with; gives it with a slash at both ends."""
    inner = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", inner) or "//" in inner:
        raise InvalidValue("a path such as /my/registry/")
    return f"/{inner}/" if inner else "/"


def parse_metrics_path(text: str) -> str:
    """Check the path that metrics are served at."""
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]+", text):
        raise InvalidValue("a path such as /metrics")
    return text


def parse_network(text: str) -> str:
    """Read a network, an address, or `unix`."""
    try:
        return read_network(text)
    except ValueError as exc:
        raise InvalidValue("a network such as 10.0.0.0/8, an address, or unix") from exc


def parse_pin(text: str) -> str:
    """Check a glob over `upstream/repository:tag`."""
    repository, colon, tag = text.rpartition(":")
    if not (colon and tag and "/" not in tag and "/" in repository) or re.search(r"\s", text):
        raise InvalidValue("a glob such as docker.io/library/python:3.*")
    return text
