"""What an operator means: a tag, a repository, a digest, or a whole upstream.

Invariant: a subject is made of checked names, with the upstream's name as the index has it.
Pure. Whether there is such a thing is for the index to say.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import InvalidReference
from engine.names import Digest, Location, Repository, Tag, parse_reference
from engine.settings import UpstreamSettings

# With a dot or a port, or `localhost`, as docker tells a registry from a user.
_HOST = re.compile(
    r"localhost(?::\d+)?|[a-z0-9][a-z0-9-]*(?:(?:\.[a-z0-9-]+)+(?::\d+)?|:\d+)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class TagSubject:
    """A tag of a repository."""

    location: Location
    tag: Tag

    def __str__(self) -> str:
        return f"{self.location}:{self.tag}"


@dataclass(frozen=True, slots=True)
class RepositorySubject:
    """Everything of one repository."""

    location: Location

    def __str__(self) -> str:
        return str(self.location)


@dataclass(frozen=True, slots=True)
class DigestSubject:
    """One piece of content, of one repository or (`location` None) wherever it is known."""

    digest: Digest
    location: Location | None = None

    def __str__(self) -> str:
        return f"{self.location}@{self.digest}" if self.location else self.digest


@dataclass(frozen=True, slots=True)
class UpstreamSubject:
    """All repositories of one upstream."""

    upstream: str

    def __str__(self) -> str:
        return self.upstream


Subject = TagSubject | RepositorySubject | DigestSubject | UpstreamSubject


def parse_subject(text: str, upstreams: Sequence[UpstreamSettings]) -> Subject:
    """Read `[UPSTREAM/]REPOSITORY[:TAG | @DIGEST]`, or a digest alone. Raises `InvalidName`.

    Without an upstream's name the first one is meant, as by clients.
    """
    if text.startswith(("sha256:", "sha384:", "sha512:")) and "/" not in text:
        return DigestSubject(Digest.parse(text))
    name, at, digest = text.partition("@")
    if at:
        # Docker's `NAME:TAG@DIGEST`: the digest says it all.
        return DigestSubject(Digest.parse(digest), parse_location(_split_tag(name)[0], upstreams))
    name, tag = _split_tag(name)
    location = parse_location(name, upstreams)
    if tag is None:
        return RepositorySubject(location)
    reference = parse_reference(tag)
    if isinstance(reference, Digest):
        raise InvalidReference(tag)
    return TagSubject(location, reference)


def parse_location(text: str, upstreams: Sequence[UpstreamSettings]) -> Location:
    """Read `[UPSTREAM/]REPOSITORY`. Raises `InvalidRepository`.

    A first part that looks like a host is an upstream's name, configured or not: the index may
    know one that is not configured any more.
    """
    first, slash, rest = text.partition("/")
    if slash:
        for upstream in upstreams:
            if first in (upstream.namespace, *upstream.namespaces):
                return _locate(upstream, rest)
        if _HOST.fullmatch(first):
            return Location(first, Repository.parse(rest))
    return _locate(upstreams[0], text)


def parse_upstream(text: str, upstreams: Sequence[UpstreamSettings]) -> str:
    """Find the name by which the index has an upstream, from any of its names."""
    for upstream in upstreams:
        if text in upstream.namespaces:
            return upstream.namespace
    return text


def _locate(upstream: UpstreamSettings, name: str) -> Location:
    if upstream.is_docker_hub and name and "/" not in name:
        name = f"library/{name}"
    return Location(upstream.namespace, Repository.parse(name))


def _split_tag(text: str) -> tuple[str, str | None]:
    """Split off a tag; a colon before a slash is a port's."""
    head, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, None
    return head, tag
