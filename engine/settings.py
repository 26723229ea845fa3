"""Typed settings of the engine. Units are in the names; defaults are the contract's.

Pure values: they are read from files and the environment elsewhere (server/config.py).
"""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DOCKER_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class HelperSettings:
    """A docker-credential-helper. `lifetime_s`: None = run once, 0 = run for every request."""

    command: str
    lifetime_s: float | None = None


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One upstream registry."""

    # The name it is known by here: in the index, in logs, in `upstream/repository` globs.
    namespace: str
    # Base URL without a trailing slash, scheme http or https; may have a path.
    url: str
    # All the names (ns values, first path components, Hosts) that select it; holds `namespace`.
    namespaces: tuple[str, ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    helper: HelperSettings | None = None
    ttl_s: float = 168 * 3600.0  # unused for so long goes; 0 = never
    tagttl_s: float = 0.0  # a younger tag is served without asking upstream
    negativettl_s: float = 5.0  # a digest's 404 is remembered for so long
    max_connections: int = 32
    # TLS, by paths of PEM files: CAs to trust beside the system's, and who we are.
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    is_insecure: bool = False  # no certificate is verified

    @property
    def has_credentials(self) -> bool:
        """Whether requests are made as somebody."""
        return self.username is not None or self.password is not None or self.helper is not None

    @property
    def is_docker_hub(self) -> bool:
        """Whether one-component repository names lie under `library/` there."""
        return urlsplit(self.url).hostname in DOCKER_HUB_HOSTS


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """The byte budget. A fraction (of the file system) or bytes, where both are possible."""

    maxsize_bytes: int | None = None
    maxsize_fraction: float | None = 0.80
    minfree_bytes: int | None = None
    minfree_fraction: float | None = 0.05
    highwatermark_fraction: float = 0.95
    lowwatermark_fraction: float = 0.90
    interval_s: float = 30.0
    policy: str = "s3-fifo"  # a key of engine.policies.POLICIES
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """The background scrub. `interval_s` 0 = off."""

    interval_s: float = 168 * 3600.0
    rate_bytes_s: int = 50 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All that the cache needs to know. The first upstream is the default one."""

    data_directory: Path
    upstreams: tuple[UpstreamSettings, ...]
    eviction: EvictionSettings = EvictionSettings()
    verify: VerifySettings = VerifySettings()
