"""Names by the spec's grammar: repositories, tags, digests, and where a repository lies.

Invariant: a value of one of these types has been checked, so it is safe in a path, an URL or SQL.
Every text from outside becomes one here, or is refused with `InvalidName`.
Source: OCI distribution-spec "Pulling manifests"; OCI image-spec descriptor.md "Digests".
"""

import re
from typing import NamedTuple, Self

from engine.errors import InvalidDigest, InvalidReference, InvalidRepository

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_MAX_REPOSITORY_CHARS = 255

# Hexadecimal characters of each algorithm; the set that go-digest knows.
DIGEST_HEX_CHARS = {"sha256": 64, "sha384": 96, "sha512": 128}
_DIGEST = re.compile(
    "|".join(rf"{name}:[a-f0-9]{{{chars}}}" for name, chars in DIGEST_HEX_CHARS.items()), re.ASCII
)


class Repository(str):
    """A repository's name at its upstream, such as `library/busybox`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check `text` by the grammar; raises `InvalidRepository`."""
        if len(text) > _MAX_REPOSITORY_CHARS or not _REPOSITORY.fullmatch(text):
            raise InvalidRepository(text)
        return cls(text)


class Tag(str):
    """A tag, such as `3.12-slim`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check `text` by the grammar; raises `InvalidReference`."""
        if not _TAG.fullmatch(text):
            raise InvalidReference(text)
        return cls(text)


class Digest(str):
    """A digest, `<algorithm>:<lower-case hex>`; sha256, sha384 or sha512."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check `text` by the grammar; raises `InvalidDigest`."""
        if not _DIGEST.fullmatch(text):
            raise InvalidDigest(text)
        return cls(text)

    @property
    def algorithm(self) -> str:
        """The name that hashlib knows the algorithm by."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part behind the colon."""
        return self.partition(":")[2]


def is_digest(text: str) -> bool:
    """Whether `text` is a digest."""
    return _DIGEST.fullmatch(text) is not None


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Read a manifest reference: a digest where there is a colon, else a tag.

    Raises `InvalidDigest` or `InvalidReference`.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


class Location(NamedTuple):
    """A repository at an upstream. `upstream` is the configured namespace, such as `docker.io`."""

    upstream: str
    repository: Repository

    def __str__(self) -> str:
        return f"{self.upstream}/{self.repository}"
