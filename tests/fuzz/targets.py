"""What is fuzzed besides the request path: everything else that reads bytes of other people.

Invariant of each: bytes of any kind give a result or the error that the function names, nothing
else.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from multidict import CIMultiDict
from yarl import URL

from engine.descriptor import MAX_NAMED, find_named, guess_media_type, is_json_object
from engine.errors import UpstreamProtocolError
from engine.names import Repository
from engine.upstream import reply
from engine.upstream.challenge import check_realm, grant_of, parse_challenges
from server.config import ConfigError, load, to_yaml
from server.config_render import render

_HERE = URL("https://registry.example/v2/library/busybox/tags/list")
_HEADERS = (
    "Docker-Content-Digest",
    "Content-Length",
    "Content-Type",
    "Link",
    "ratelimit-limit",
    "ratelimit-remaining",
)


def read_config(data: bytes) -> None:
    """A configuration file: settings or `ConfigError`; what it prints is a configuration again."""
    with tempfile.TemporaryDirectory(prefix="moorage-fuzz-") as directory:
        file = Path(directory) / "config.yml"
        file.write_bytes(data)
        try:
            settings = load(file, {})
        except ConfigError:
            return
        file.write_text(to_yaml(render(settings)), encoding="utf-8")
        load(file, {})


def read_manifest(data: bytes) -> None:
    """A manifest: what it names is well-formed and bounded."""
    named = find_named(data)
    assert len(named) <= MAX_NAMED
    assert all(descriptor.size_bytes >= 0 for descriptor in named)
    assert guess_media_type(data)
    is_json_object(data)


def read_upstream(data: bytes) -> None:
    """An upstream's headers and error bodies, a line each."""
    lines = data.decode("latin-1").split("\n")
    headers = CIMultiDict(zip(_HEADERS, lines, strict=False))
    reply.reason_of(data)
    reply.digest_header(headers)
    reply.content_length(headers)
    reply.media_type(headers)
    reply.rate_limit(headers)
    for line in lines:
        after_s = reply.retry_after_s(line, 1.7e9)
        assert after_s is None or after_s >= 0
        _expect_refusal(lambda line=line: reply.next_hop(_HERE, line))  # type: ignore[misc]  # mypy cannot infer a lambda's default
        for challenge in parse_challenges(line):
            grant = grant_of(challenge, Repository("library/busybox"))
            _expect_refusal(lambda realm=grant.realm: check_realm(realm, _HERE))  # type: ignore[misc]  # as above
    _expect_refusal(lambda: reply.next_page(_HERE, headers))


def _expect_refusal(read: Callable[[], URL | None]) -> None:
    try:
        url = read()
    except UpstreamProtocolError:
        return
    assert url is None or url.scheme == "https"


PARSERS: dict[str, Callable[[bytes], None]] = {
    "config": read_config,
    "manifest": read_manifest,
    "upstream": read_upstream,
}
