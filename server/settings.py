"""Typed settings of the server. Units are in the names; defaults are the contract's.

Pure values, made by server/config.py from distribution's `config.yml`, the environment and flags.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from engine.settings import EngineSettings


class LogFormat(Enum):
    """How log lines are written (distribution's `log.formatter`)."""

    TEXT = "text"
    JSON = "json"
    LOGSTASH = "logstash"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """distribution's `log` section."""

    level: str = "info"  # error, warn, info, debug
    formatter: LogFormat = LogFormat.TEXT
    is_access_log_enabled: bool = True
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listener:
    """One address to listen on: a TCP host and port, or a unix socket's path."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ClientAuth(Enum):
    """Whether clients show certificates (distribution's `http.tls.clientauth`)."""

    NONE = ""
    # Go asks for one and looks at nothing of it, which is the same as not to ask.
    REQUEST = "request-client-cert"
    VERIFY_IF_GIVEN = "verify-client-cert-if-given"
    REQUIRE_AND_VERIFY = "require-and-verify-client-cert"


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """distribution's `http.tls` section: paths of PEM files, and what is agreed on with clients.

    `ciphersuites` are distribution's (Go's) names; none = the default ones.
    """

    certificate: str
    key: str
    clientcas: tuple[str, ...] = ()
    clientauth: ClientAuth = ClientAuth.NONE
    minimumtls: str = "tls1.2"  # or tls1.3
    ciphersuites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HTTPSettings:
    """distribution's `http` section."""

    listeners: tuple[Listener, ...] = (Listener("127.0.0.1", 5000),)
    # Extra header lines of every response, as configured under `http.headers`.
    headers: tuple[tuple[str, str], ...] = ()
    prefix: str = "/"  # starts and ends with a slash
    draintimeout_s: float = 25.0
    tls: TLSSettings | None = None
    debug_listeners: tuple[Listener, ...] = ()
    prometheus_path: str = ""  # empty = metrics off
    # What operators prove themselves by at the debug port; None = nobody may act there.
    debug_token: str | None = field(default=None, repr=False)
    # Networks of proxies that are believed whom a request or a connection comes from.
    trustedproxies: tuple[str, ...] = ()
    has_proxy_header: bool = False  # every connection begins with one of the PROXY protocol


@dataclass(frozen=True, slots=True)
class HtpasswdSettings:
    """distribution's `auth.htpasswd` section: clients log in by the accounts of a file."""

    realm: str
    path: Path


@dataclass(frozen=True, slots=True)
class AccessRule:
    """A rule of `access.rules`: about whom (empty = everybody), and about what.

    `networks` as `server.networks.parse_network` gives them; all else are globs.
    """

    networks: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()  # over the name of the client's certificate
    allow: tuple[str, ...] = ()  # over `upstream/repository:tag`
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """The `access` section: the first rule that is about client and content decides."""

    rules: tuple[AccessRule, ...] = ()
    is_allowed_by_default: bool = False


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Everything `serve` needs. `warnings` are said once at start."""

    engine: EngineSettings
    http: HTTPSettings = HTTPSettings()
    log: LogSettings = LogSettings()
    auth: HtpasswdSettings | None = None  # None = nobody is asked who they are
    access: AccessSettings | None = None  # None = everybody may pull everything
    tags_max: int = 0  # distribution's `tags.maxtags`; 0 = no bound of a page
    catalog_max: int = 1000  # distribution's `catalog.maxentries`
    warnings: tuple[str, ...] = ()
