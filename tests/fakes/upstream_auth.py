"""The scripted upstream's demand for a login: a token service, Basic, or nothing."""

import base64
import binascii
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from tests.fakes.upstream_wire import Answer, Seen


class Mode(Enum):
    """What is demanded."""

    NONE = auto()
    TOKEN = auto()
    BASIC = auto()


@dataclass(slots=True)
class Auth:
    """Who may do what. `clock` is the upstream's time; tests may replace it."""

    mode: Mode = Mode.NONE
    service: str = "scripted.test"
    realm: str = ""  # the token service's URL; set by the upstream when it starts
    scheme_prefix: str = ""  # further challenges before ours, such as `Negotiate, `
    has_scope: bool = True  # whether the challenge names one
    expires_in: int | None = 300
    issued_at: str | None = None
    token_field: str = "token"
    users: dict[str, str] = field(default_factory=dict)
    # Repositories by user ("" = anonymous); None = all. Users that are missing may nothing.
    grants: dict[str, set[str] | None] = field(default_factory=lambda: {"": None})
    clock: Callable[[], float] = time.monotonic
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def require_token(self, **users: str) -> None:
        """Demand a bearer token; `users` may do everything, and alone if there are any."""
        self.mode = Mode.TOKEN
        self._grant(users)

    def require_basic(self, **users: str) -> None:
        """Demand a name and a password with each request."""
        self.mode = Mode.BASIC
        self._grant(users)

    def _grant(self, users: dict[str, str]) -> None:
        self.users = users
        self.grants = dict.fromkeys(users) if users else {"": None}

    def revoke_tokens(self) -> None:
        """Forget every token that was handed out."""
        self._tokens.clear()

    def refuse(self, seen: Seen) -> Answer | None:
        """Answer 401 or 403 to a request for content that its credentials do not allow."""
        match self.mode:
            case Mode.NONE:
                return None
            case Mode.BASIC:
                return self._refuse_basic(seen)
            case Mode.TOKEN:
                return self._refuse_token(seen)

    def _refuse_basic(self, seen: Seen) -> Answer | None:
        user = self._user_of(seen)
        if user:
            return None if self._may(user, seen.repository) else error(403, "DENIED", "not yours")
        challenge = f'{self.scheme_prefix}Basic realm="scripted, \\"really\\""'
        return error(401, "UNAUTHORIZED", "log in", {"WWW-Authenticate": challenge})

    def _refuse_token(self, seen: Seen) -> Answer | None:
        scheme, _, token = (seen.header("authorization") or "").partition(" ")
        scope, expires_at = self._tokens.get(token, ("", 0.0))
        wanted = f"repository:{seen.repository}:pull"
        if scheme == "Bearer" and expires_at > self.clock() and wanted in scope.split():
            return None
        challenge = f'{self.scheme_prefix}Bearer realm="{self.realm}",service="{self.service}"'
        if self.has_scope:
            challenge += f',scope="{wanted}"'
        if scheme:
            challenge += ',error="insufficient_scope"'
        headers = {"WWW-Authenticate": challenge}
        return error(401, "UNAUTHORIZED", "authentication required", headers)

    def issue(self, seen: Seen) -> Answer:
        """Answer a request to the token service."""
        user = self._user_of(seen)
        if user is None:
            return error(401, "UNAUTHORIZED", "incorrect username or password")
        asked = seen.query.get("scope", [])
        granted = [scope for scope in asked if self._may(user, scope.split(":")[1])]
        token = f"token-{next(self._numbers)}-{user or 'anonymous'}"
        lifetime_s = 60 if self.expires_in is None else self.expires_in
        self._tokens[token] = (" ".join(granted), self.clock() + lifetime_s)
        reply: dict[str, object] = {self.token_field: token}
        if self.expires_in is not None:
            reply["expires_in"] = self.expires_in
        if self.issued_at is not None:
            reply["issued_at"] = self.issued_at
        headers = {"Content-Type": "application/json"}
        return Answer(200, headers, json.dumps(reply).encode())

    def _may(self, user: str, repository: str) -> bool:
        granted = self.grants.get(user, set())
        return granted is None or repository in granted

    def _user_of(self, seen: Seen) -> str | None:
        """Name the user; "" for nobody, None for a wrong password."""
        scheme, _, encoded = (seen.header("authorization") or "").partition(" ")
        if scheme != "Basic":
            return ""
        try:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user if self.users.get(user) == password else None


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    """Make an OCI error response."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, body)
