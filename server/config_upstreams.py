"""The `proxy` and `upstreams` sections: which registries are mirrored, and by which names.

Invariant: every namespace selects one upstream. Those that a user wrote come first; the default
upstream's implied ones give way to them. An upstream is known by its first namespace.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from engine.pem import PemError
from engine.settings import DOCKER_HUB_HOSTS, HelperSettings, UpstreamSettings
from engine.upstream.trust import make_context
from server.config_secret import read_secret
from server.config_tree import InvalidValue, Reader, show
from server.config_values import (
    parse_bool,
    parse_count,
    parse_duration_s,
    parse_namespace,
    parse_url,
)

DOCKER_HUB = "docker.io"
_DOCKER_HUB_URL = "https://registry-1.docker.io"
# The names that clients have for Docker Hub, the usual one first.
_DOCKER_HUB_NAMESPACES = sorted(DOCKER_HUB_HOSTS)
_DEFAULTS = UpstreamSettings(namespace=DOCKER_HUB, url=_DOCKER_HUB_URL)


def build_upstreams(root: Reader, *, has_file: bool) -> tuple[UpstreamSettings, ...]:
    """Build all upstreams, the default one first."""
    proxy = root.section("proxy")
    others = dict(root.sections("upstreams"))
    own_names: list[str] = []
    if proxy.text("remoteurl") is None and DOCKER_HUB in others:
        _refuse_halves(proxy)
        proxy = others.pop(DOCKER_HUB)
        own_names = [DOCKER_HUB]
    elif proxy.text("remoteurl") is None and has_file:
        proxy.warn("remoteurl", f"not set: this is a mirror of Docker Hub, {_DOCKER_HUB_URL}")
    claims: dict[str, str] = {}
    named = [_build_named(key, reader, claims) for key, reader in others.items()]
    wanted = proxy.values("namespaces", parse_namespace)
    namespaces = _claim(proxy, [*own_names, *wanted], claims)
    url = proxy.value("remoteurl", parse_url, _DOCKER_HUB_URL)
    if not wanted:
        namespaces += _imply_namespaces(url, claims)
    return (_build(proxy, url, namespaces), *named)


def _refuse_halves(proxy: Reader) -> None:
    """Refuse settings of a default upstream that `upstreams` configures already."""
    for key in proxy.keys:
        proxy.add_problem(
            key, "a setting", f"none here, since upstreams.{DOCKER_HUB} is the default"
        )


def _build_named(key: str, reader: Reader, claims: dict[str, str]) -> UpstreamSettings:
    try:
        namespace = parse_namespace(key)
    except InvalidValue as exc:
        reader.report.add_problem(reader.path, "this name", exc.expected)
        namespace = key
    wanted = [namespace, *reader.values("namespaces", parse_namespace)]
    namespaces = _claim(reader, wanted, claims) or [namespace]
    implied_url = _DOCKER_HUB_URL if namespace in DOCKER_HUB_HOSTS else f"https://{namespace}"
    return _build(reader, reader.value("remoteurl", parse_url, implied_url), namespaces)


def _claim(reader: Reader, wanted: Sequence[str], claims: dict[str, str]) -> list[str]:
    """Give `wanted` without repetitions; those that another upstream has are reported."""
    owner = ".".join(reader.path)
    claimed = []
    for namespace in dict.fromkeys(wanted):
        if claims.setdefault(namespace, owner) == owner:
            claimed.append(namespace)
        else:
            expected = f"one that {claims[namespace]} does not have"
            reader.add_problem("namespaces", namespace, expected)
    return claimed


def _imply_namespaces(url: str, claims: dict[str, str]) -> list[str]:
    """Choose the default upstream's namespaces: Docker Hub's and its host, less those claimed.

    Docker Hub's come first, since a mirror of a mirror is one of Docker Hub still; but where
    another upstream is Docker Hub by name, the host says better what this one is.
    """
    host = _host_of(url)
    candidates = [*_DOCKER_HUB_NAMESPACES, host]
    if DOCKER_HUB in claims:
        candidates.insert(0, host)
    return [name for name in dict.fromkeys(candidates) if name not in claims]


def _host_of(url: str) -> str:
    """Give an URL's `host[:port]`, with a port where it could be taken for a repository's name."""
    parts = urlsplit(url)
    if "." in parts.netloc or ":" in parts.netloc:
        return parts.netloc
    return f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"


def _build(reader: Reader, url: str, namespaces: list[str]) -> UpstreamSettings:
    if not namespaces:
        reader.add_problem("namespaces", "none that is left", "one that no other upstream has")
    settings = UpstreamSettings(
        namespace=namespaces[0] if namespaces else "",
        url=url,
        namespaces=tuple(namespaces),
        username=reader.text("username"),
        password=read_secret(reader, "password", "passwordfile"),
        helper=_build_helper(reader),
        ttl_s=reader.value("ttl", parse_duration_s, _DEFAULTS.ttl_s),
        tagttl_s=reader.value("tagttl", parse_duration_s, _DEFAULTS.tagttl_s),
        negativettl_s=reader.value("negativettl", parse_duration_s, _DEFAULTS.negativettl_s),
        max_connections=reader.value("maxconnections", parse_count, _DEFAULTS.max_connections),
        ca=reader.text("ca"),
        certificate=reader.text("certificate"),
        key=reader.text("key"),
        is_insecure=reader.value("insecure", parse_bool, _DEFAULTS.is_insecure),
    )
    _check_trust(reader, settings)
    return settings


def _check_trust(reader: Reader, settings: UpstreamSettings) -> None:
    """Check what TLS needs, by reading the files."""
    for key, other in (("certificate", "key"), ("key", "certificate")):
        if key in reader and reader.text(other) is None:
            reader.add_problem(other, f"none beside {key}", "the path of a file in PEM")
            return
    if settings.is_insecure:
        message = (
            "upstream's certificate is NOT verified: anybody on the way can read what is sent to "
            "it, credentials too, and answer in its place; configure its CA as `ca` instead"
        )
        reader.warn("insecure", message)
    try:
        make_context(settings)
    except PemError as exc:
        reader.add_problem(exc.role.value, f"{show(exc.path)}: {exc.reason}", exc.expected)


def _build_helper(reader: Reader) -> HelperSettings | None:
    helper = reader.section("exec")
    command = helper.text("command")
    if command is None:
        for key in helper.keys:
            helper.add_problem("command", f"none beside {key}", "a docker-credential-helper")
        return None
    if reader.text("username") or reader.text("password") or reader.text("passwordfile"):
        # As in distribution: the helper decides.
        reader.warn("exec", "used instead of the username and password that are also set")
    return HelperSettings(command, helper.value("lifetime", parse_duration_s, None))
