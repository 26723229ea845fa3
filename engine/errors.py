"""Every way the engine can fail, by name. Facts are in attributes; the message is made once.

An upstream's fault never becomes `NotFound`. HTTP status codes are the server's (server/errors.py).
"""


class CacheError(Exception):
    """The root of all errors that the engine raises on purpose."""


class NotFound(CacheError):
    """Upstream said that it does not exist, or no upstream is configured for it."""


class RepositoryUnknown(NotFound):
    """No such repository."""


class ManifestUnknown(NotFound):
    """No such manifest or tag in the repository."""


class BlobUnknown(NotFound):
    """No such blob in the repository."""


class InvalidName(CacheError):
    """A text from outside that the grammar forbids."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f"{text[:300]!r} is not {expected}")
        self.text = text


class InvalidRepository(InvalidName):
    """Not a repository name."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "a repository name")


class InvalidReference(InvalidName):
    """Not a tag."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "a tag")


class InvalidDigest(InvalidName):
    """Not a digest of an algorithm that we can verify."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "a digest (sha256, sha384 or sha512)")


class UpstreamError(CacheError):
    """Upstream could not or would not answer. `upstream_status`: its HTTP status, if any."""

    def __init__(self, message: str, *, upstream_status: int | None = None) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status


class UpstreamUnavailable(UpstreamError):
    """Transient: refused, reset, timeout, TLS, 5xx, an open circuit breaker."""

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, upstream_status=upstream_status)
        self.retry_after_s = retry_after_s


class NotAsked(UpstreamUnavailable):
    """No connection was free, or the mirror is stopping: says nothing about upstream.

    It is not retried, and no circuit breaker hears of it.
    """


class UpstreamDenied(UpstreamError):
    """401 or 403 after the token exchange. The message bears upstream's own reason."""


class UpstreamRateLimited(UpstreamError):
    """429, or not asked because an earlier 429 still holds. `retry_after_s` is from now."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, upstream_status=429)
        self.retry_after_s = retry_after_s


class UpstreamProtocolError(UpstreamError):
    """Upstream answered, but not as a registry does."""


class ContentMismatch(CacheError):
    """Bytes that are not what their name says. They are never kept."""


class DigestMismatch(ContentMismatch):
    """The bytes hash to something else."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}, received bytes of {actual}")
        self.expected = expected
        self.actual = actual


class SizeMismatch(ContentMismatch):
    """More or fewer bytes than the descriptor says."""

    def __init__(self, digest: str, expected_bytes: int, actual_bytes: int) -> None:
        super().__init__(f"{digest}: expected {expected_bytes} bytes, received {actual_bytes}")
        self.expected_bytes = expected_bytes
        self.actual_bytes = actual_bytes


class BlockMismatch(ContentMismatch):
    """Upstream sent other bytes for a part of a blob than it did a moment ago."""

    def __init__(self, digest: str, offset: int) -> None:
        super().__init__(f"{digest}: upstream sent two versions of the bytes from {offset} on")
        self.offset = offset


class StorageError(CacheError):
    """The disk or the index failed; the cause is chained."""


class IndexDamaged(StorageError):
    """SQLite says that the index's file is no database, or a malformed one."""


class IndexTooNew(StorageError):
    """The index was written by a newer program."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has schema version {found}; this program knows {known}")
        self.found = found
        self.known = known


class DirectoryInUse(StorageError):
    """Another server has the data directory."""

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"{path} is in use by the server with pid {pid or 'unknown'}")
        self.pid = pid


class OutOfSpace(StorageError):
    """The byte budget cannot hold it: never (`can_ever_fit` false) or not now."""

    def __init__(self, needed_bytes: int, limit_bytes: int, *, can_ever_fit: bool) -> None:
        when = "now" if can_ever_fit else "ever"
        super().__init__(f"{needed_bytes} bytes do not fit {when} into {limit_bytes}")
        self.needed_bytes = needed_bytes
        self.limit_bytes = limit_bytes
        self.can_ever_fit = can_ever_fit


class StoragePaused(StorageError):
    """Nothing is stored for a while: the disk failed, or nobody knows yet what it holds."""


class FellBehind(StorageError):
    """A client is too slow for a blob that is not stored, and so are too many others."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"{digest} is not stored here, and the client reads it too slowly")
