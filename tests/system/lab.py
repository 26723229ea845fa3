"""A mirror in a process of its own, and the upstream that a test scripts, as one.

Invariant: cases may share a lab. Each has a repository of its own, so what one finds in the cache
or in the upstream's record is no other's; and a namespace of its own where it makes upstream fail,
since a pause or an open circuit breaker is one upstream's.
"""

import http.client
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.mirror import Mirror, Site, site_of
from tests.fakes.upstream import Gate, ScriptedUpstream, Seen, ThreadedUpstream
from tests.system.raw import Answer, ask

# Sent with each request: it is to be in no log line and in no request to upstream.
SECRET = "c2VjcmV0OnNlY3JldA=="
NAMES = tuple(f"upstream-{number}.test" for number in range(1, 100))
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Lab:
    """A running mirror and its upstream."""

    mirror: Mirror
    thread: ThreadedUpstream
    names: Iterator[str]

    def take_name(self) -> str:
        """Give a name of the upstream that nobody else has: a namespace, and a repository."""
        return next(self.names)

    @property
    def upstream(self) -> ScriptedUpstream:
        """What is scripted and what was asked of it."""
        return self.thread.upstream

    def ask(
        self, target: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        """Ask the mirror on a connection of its own, as a client with credentials would."""
        sent = {"Authorization": f"Basic {SECRET}", **(headers or {})}
        return ask(self.mirror.address, target, sent, method)

    @contextmanager
    def open(
        self, target: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Get something and read no more than its head; the connection ends with the block."""
        connection = http.client.HTTPConnection(self.mirror.address, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", target, headers=dict(headers or {}))
            yield connection.getresponse()
        finally:
            connection.close()

    def wait_at(self, gate: Gate) -> None:
        """Wait until a request of the mirror stands at `gate`."""
        self.thread.run(gate.wait_reached())

    def wait_for_access(self, path: str, method: str = "GET") -> re.Match[str]:
        """Wait for the access log's line about `path`; its `status` and `cause` are groups."""
        return self.mirror.child.wait_for(
            rf'access method={method} path="{re.escape(path)}" status=(?P<status>\d+) '
            r'.*cause="(?P<cause>.*?)"$'
        )

    def find_leaks(self) -> list[str | Seen]:
        """List log lines and requests to upstream in which a client's credentials are."""
        lines: list[str | Seen] = [line for line in self.mirror.child.lines() if SECRET in line]
        return lines + [seen for seen in self.upstream.requests if SECRET in str(seen.headers)]


@contextmanager
def run_lab(directory: Path, names: Iterable[str] = NAMES, **keys: object) -> Iterator[Lab]:
    """Run a mirror of a scripted upstream, which is known by each of `names` as well.

    `keys` are further ones of these upstreams, such as `username`.
    """
    with ThreadedUpstream() as thread:
        urls = dict.fromkeys(names, thread.upstream.url)
        with site_of_all(directory, thread.upstream.url, urls, **keys).start() as mirror:
            yield Lab(mirror, thread, iter(urls))


def site_of_all(directory: Path, url: str, others: Mapping[str, str], **keys: object) -> Site:
    """Lay out a mirror of `url` and of the upstreams at `others`, by namespace, with `keys`."""
    site = site_of(directory, url)
    upstreams = {namespace: {"remoteurl": other, **keys} for namespace, other in others.items()}
    return Site(site.directory, site.config | {"upstreams": upstreams})


def message_of(answer: Answer) -> str:
    """Give the message of an answer's first OCI error."""
    return str(json.loads(answer.body)["errors"][0]["message"])
