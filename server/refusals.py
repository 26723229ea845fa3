"""Why the API refuses a request by itself, without asking the engine.

Facts are in attributes; the message is made once. Their HTTP status codes are in server/errors.py.
"""

from collections.abc import Iterable


class Refusal(Exception):
    """The root of all refusals."""


class PathUnknown(Refusal):
    """No endpoint has this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no endpoint of the registry API has the path {path[:300]!r}")


class MethodUnsupported(Refusal):
    """The mirror is read-only."""

    def __init__(self, method: bytes) -> None:
        text = method[:40].decode("ascii", "backslashreplace")
        super().__init__(f"{text} is not supported: this mirror is read-only, push to the upstream")


class NamespaceUnknown(Refusal):
    """`ns` names a registry that is not configured here; nobody is asked."""

    def __init__(self, namespace: str, configured: Iterable[str]) -> None:
        names = ", ".join(configured)
        super().__init__(f"ns={namespace[:300]!r} is not mirrored here; configured are: {names}")


class PageSizeInvalid(Refusal):
    """`n` is not a number of entries."""

    def __init__(self, text: str) -> None:
        super().__init__(f"n={text[:40]!r} is not a number of entries (0 or more)")


class Unauthorized(Refusal):
    """No valid credentials, where they are wanted. `realm` is what the challenge names."""

    def __init__(self, realm: str) -> None:
        super().__init__("authentication required: no valid user name and password were sent")
        self.realm = realm


class AccessDenied(Refusal):
    """A rule of the configuration, at `place` in it, keeps the client from what it asks for."""

    def __init__(self, place: str) -> None:
        super().__init__(f"denied by {place} in the configuration of this mirror")
        self.place = place


class LoginsLimited(Refusal):
    """Too many logins have failed, or wait, for another one to be tried now."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many logins failed or are waiting")
        self.retry_after_s = retry_after_s


class RangeUnsatisfiable(Refusal):
    """The Range asked for lies outside the content."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the range lies outside the blob, which has {size_bytes} bytes")
        self.size_bytes = size_bytes
