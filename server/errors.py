"""The one table of failures: what each error of the engine or refusal of the API is over HTTP.

Invariant: an upstream's fault never becomes 404, and nothing becomes 401 but `Unauthorized`, which
is raised only where clients are to log in (dockerd answers a mirror's challenge with the user's
Docker Hub password).
Source: OCI distribution-spec "Error Codes"; distribution's registry/api/errcode for Docker's own.
"""

import math
from dataclasses import dataclass
from enum import Enum

import msgspec

from engine import errors
from server import refusals


class Code(Enum):
    """Error codes that clients know."""

    # OCI distribution-spec
    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    # Docker's, where the spec has no code
    UNKNOWN = "UNKNOWN"
    UNAVAILABLE = "UNAVAILABLE"
    RANGE_INVALID = "RANGE_INVALID"
    PAGINATION_NUMBER_INVALID = "PAGINATION_NUMBER_INVALID"


# The nearest class in an error's inheritance counts.
TABLE: dict[type[Exception], tuple[int, Code]] = {
    refusals.PathUnknown: (404, Code.UNSUPPORTED),
    refusals.MethodUnsupported: (405, Code.UNSUPPORTED),
    refusals.NamespaceUnknown: (404, Code.NAME_UNKNOWN),
    refusals.PageSizeInvalid: (400, Code.PAGINATION_NUMBER_INVALID),
    refusals.RangeUnsatisfiable: (416, Code.RANGE_INVALID),
    refusals.Unauthorized: (401, Code.UNAUTHORIZED),
    refusals.AccessDenied: (403, Code.DENIED),
    refusals.LoginsLimited: (429, Code.TOOMANYREQUESTS),
    errors.NotFound: (404, Code.NAME_UNKNOWN),
    errors.RepositoryUnknown: (404, Code.NAME_UNKNOWN),
    errors.ManifestUnknown: (404, Code.MANIFEST_UNKNOWN),
    errors.BlobUnknown: (404, Code.BLOB_UNKNOWN),
    errors.InvalidName: (400, Code.NAME_INVALID),
    errors.InvalidRepository: (400, Code.NAME_INVALID),
    errors.InvalidDigest: (400, Code.DIGEST_INVALID),
    # No manifest can have such a tag, and the OCI conformance suite asks for one to see a 404.
    errors.InvalidReference: (404, Code.MANIFEST_UNKNOWN),
    errors.UpstreamDenied: (403, Code.DENIED),
    errors.UpstreamRateLimited: (429, Code.TOOMANYREQUESTS),
    errors.UpstreamUnavailable: (503, Code.UNAVAILABLE),
    # 502 with UNAVAILABLE: no code says "bad gateway", and clients go by the status.
    errors.UpstreamProtocolError: (502, Code.UNAVAILABLE),
    errors.ContentMismatch: (502, Code.UNAVAILABLE),
    # The request is fine and another host can serve it: 503 sends clients there, 500 need not.
    errors.StorageError: (503, Code.UNAVAILABLE),
    errors.CacheError: (500, Code.UNKNOWN),
}

DEFAULT_RETRY_AFTER_S = 5.0
_MAX_MESSAGE_CHARS = 1_000
_NOT_FORWARDED = "moorage; detail=not-forwarded"


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure as it is told. `fields` are further header fields of the response."""

    status: int
    code: Code
    message: str
    fields: tuple[tuple[str, str], ...] = ()

    def body(self) -> bytes:
        """The error as OCI JSON."""
        return msgspec.json.encode({"errors": [{"code": self.code.value, "message": self.message}]})


def describe(error: Exception, user_agent: bytes | None) -> Problem:
    """Look `error` up. Raises KeyError for an error that is not of the engine or the API."""
    status, code = _find_row(type(error))
    # containerd repeats a 429 at once, five times; on 503 it goes to its next host.
    if status == 429 and is_containerd(user_agent):
        status, code = 503, Code.UNAVAILABLE
    message = str(error)[:_MAX_MESSAGE_CHARS]
    fields = [("Cache-Status", _cache_status(error)), *_fields_of(error)]
    retry_after_s = _find_retry_after(error)
    if retry_after_s is not None:
        seconds = max(1, math.ceil(retry_after_s))
        fields.append(("Retry-After", str(seconds)))
        if "retry after" not in message:
            message = f"{message}, retry after {seconds} s"
    return Problem(status, code, message, tuple(fields))


def describe_own(status: int, message: str) -> Problem:
    """Describe a failure of the transport's own, which stands in no table: it has its status."""
    code = Code.UNSUPPORTED if status in (501, 505) else Code.UNKNOWN
    return Problem(status, code, message, (("Cache-Status", _NOT_FORWARDED),))


def is_containerd(user_agent: bytes | None) -> bool:
    """Tell containerd's resolver, which dockerd's containerd store uses too."""
    return user_agent is not None and (
        b"containerd/" in user_agent or b"containerd-client/" in user_agent
    )


def _find_row(kind: type[Exception]) -> tuple[int, Code]:
    for ancestor in kind.__mro__:
        if ancestor in TABLE:
            return TABLE[ancestor]
    raise KeyError(kind)


def _fields_of(error: Exception) -> list[tuple[str, str]]:
    match error:
        case refusals.MethodUnsupported():
            return [("Allow", "GET, HEAD")]
        case refusals.Unauthorized(realm=realm):
            # The version tells docker's older clients that this is a registry (Docker Registry
            # HTTP API V2, "API Version Check").
            return [_challenge(realm), ("Docker-Distribution-API-Version", "registry/2.0")]
        case refusals.RangeUnsatisfiable(size_bytes=size_bytes):
            return [("Content-Range", f"bytes */{size_bytes}")]
        case _:
            return []


def _challenge(realm: str) -> tuple[str, str]:
    """Ask for a name and a password (RFC 7617 §2; quoted as RFC 9110 §5.6.4 has it)."""
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    return ("WWW-Authenticate", f'Basic realm="{quoted}"')


def _find_retry_after(error: Exception) -> float | None:
    match error:
        case errors.UpstreamRateLimited(retry_after_s=seconds):
            return seconds
        case refusals.LoginsLimited(retry_after_s=seconds):
            return seconds
        case errors.UpstreamUnavailable(retry_after_s=seconds):
            return DEFAULT_RETRY_AFTER_S if seconds is None else seconds
        case _:
            return None


def _cache_status(error: Exception) -> str:
    """Say what the cache did, by RFC 9211 §2.

    It would have a refusal made here bear no member; but every response of the mirror says what
    was done for it, so that a job's log tells an upstream's 404 from ours.
    """
    match error:
        case errors.NotFound():
            return "moorage; fwd=uri-miss; fwd-status=404"
        case errors.UpstreamError(upstream_status=int(status)):
            return f"moorage; fwd=uri-miss; fwd-status={status}"
        case errors.UpstreamError():
            return "moorage; fwd=uri-miss; detail=no-answer"
        case errors.ContentMismatch():
            return "moorage; fwd=uri-miss; detail=mismatch"
        case errors.StorageError():
            return "moorage; detail=storage-failed"
        case refusals.RangeUnsatisfiable():
            return "moorage; detail=range-unsatisfiable"
        case _:
            return _NOT_FORWARDED
