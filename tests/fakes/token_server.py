"""A registry's token server, as distribution's `auth.token` trusts one.

Anybody may pull, except from private repositories, which take a user who was granted them.
As the protocol demands, getting fewer rights than asked is a token with fewer rights, not an error;
only a wrong password is refused. Source: distribution docs/content/spec/auth/{token,jwt}.md.
"""

import base64
import datetime
import json
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

ISSUER = "tests"
SERVICE = "upstream.tests"


class Signer:
    """A key and its self-signed certificate, which the registry is told to trust."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate_pem(self) -> bytes:
        """What belongs in `auth.token.rootcertbundle`."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, claims: Mapping[str, object]) -> str:
        """Make a JSON Web Token that carries its certificate, which distribution 2.8 wants."""
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_base64url(_json(header))}.{_base64url(_json(claims))}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a token and how it was answered. `user` is empty for anonymous ones."""

    user: str
    scopes: tuple[str, ...]
    status: int


@dataclass(frozen=True, slots=True)
class Grants:
    """Who may do what. Repositories that nobody is granted are public."""

    passwords: Mapping[str, str]
    private: Mapping[str, Collection[str]]  # repository -> users

    def actions(self, user: str, repository: str) -> list[str]:
        """List what `user` may do in `repository`."""
        is_allowed = repository not in self.private or user in self.private[repository]
        return ["pull"] if is_allowed else []


class TokenServer:
    """Runs in a thread on a port of its own while its `with` block lasts."""

    def __init__(self, signer: Signer, grants: Grants, *, expires_in_s: int = 300) -> None:
        self.signer = signer
        self.grants = grants
        self.expires_in_s = expires_in_s
        self._requests: list[TokenRequest] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def realm(self) -> str:
        """The URL that a challenge names."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def requests(self) -> list[TokenRequest]:
        """Every request so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def mint(self, user: str, access: Mapping[str, list[str]]) -> str:
        """Make a token for `user` with `access`, repository by repository."""
        now = int(time.time())
        granted = [
            {"type": "repository", "name": name, "actions": actions}
            for name, actions in access.items()
        ]
        return self.signer.sign(
            {
                "iss": ISSUER,
                "sub": user,
                "aud": SERVICE,
                "iat": now,
                "nbf": now - 60,
                "exp": now + self.expires_in_s,
                "jti": f"{user}-{now}",
                "access": granted,
            }
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, target: str, authorization: str) -> tuple[int, bytes]:
        """Decide one request; returns the status and the JSON body."""
        scopes = tuple(parse_qs(urlsplit(target).query).get("scope", []))
        user, password = _basic(authorization)
        is_known = not user or self.grants.passwords.get(user) == password
        status = 200 if is_known else 401
        with self._lock:
            self._requests.append(TokenRequest(user, scopes, status))
        if not is_known:
            return status, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}'
        asked = [scope.split(":")[1] for scope in scopes if scope.count(":") == 2]
        token = self.mint(user, {name: self.grants.actions(user, name) for name in asked})
        return status, _json({"token": token, "expires_in": self.expires_in_s})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = server.answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing: `requests` has it all."""

        return Handler


def _basic(authorization: str) -> tuple[str, str]:
    """Read an `Authorization: Basic` value; both parts are empty where there is none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    user, _, password = base64.b64decode(encoded).decode().partition(":")
    return user, password


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
