"""Turns a checked tree into settings: defaults, meanings, and what does not go together.

Invariant: what cannot be had is a problem, never a silent approximation: a registry that was
configured to ask for passwords does not start without asking.
"""

import json
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engine.policies import POLICIES
from engine.settings import EngineSettings, EvictionSettings, UpstreamSettings, VerifySettings
from server.config_access import build_access
from server.config_auth import build_auth
from server.config_http import build_http, find_exposed
from server.config_schema import OTHER_DRIVERS
from server.config_tree import InvalidValue, Node, Reader, Report
from server.config_upstreams import build_upstreams
from server.config_values import (
    Share,
    one_of,
    parse_bool,
    parse_duration_s,
    parse_fraction,
    parse_int,
    parse_pin,
    parse_share,
    parse_size_bytes,
)
from server.settings import (
    ClientAuth,
    HtpasswdSettings,
    HTTPSettings,
    LogFormat,
    LogSettings,
    ServerSettings,
)

_EVICTION = EvictionSettings()
_VERIFY = VerifySettings()
_LOG = LogSettings()
_CATALOG_MAX = 1000

_parse_level = one_of("error", "warn", "info", "debug")
_parse_format = one_of(*(format_.value for format_ in LogFormat))
_parse_policy = one_of(*POLICIES)


def build(
    tree: Node, environ: Mapping[str, str], report: Report, *, has_file: bool
) -> ServerSettings:
    """Build the settings; problems and warnings go to `report`."""
    root = Reader(tree, (), report)
    auth = build_auth(root.section("auth"))
    upstreams = build_upstreams(root, has_file=has_file)
    http = build_http(root.section("http"))
    access = build_access(root.section("access"), upstreams, http, auth)
    if access is None or auth is not None:
        _warn_of_exposure(root, upstreams, http, auth)
    engine = EngineSettings(
        data_directory=_choose_directory(root.section("storage"), environ),
        upstreams=upstreams,
        eviction=_build_eviction(root.section("eviction")),
        verify=_build_verify(root.section("verify")),
    )
    return ServerSettings(
        engine=engine,
        http=http,
        log=_build_log(root),
        auth=auth,
        access=access,
        tags_max=root.section("tags").value("maxtags", _parse_maxtags, 0),
        # As in distribution: what is not positive means the default.
        catalog_max=max(0, root.section("catalog").value("maxentries", parse_int, 0))
        or _CATALOG_MAX,
        warnings=tuple(report.warnings),
    )


def _warn_of_exposure(
    root: Reader,
    upstreams: tuple[UpstreamSettings, ...],
    http: HTTPSettings,
    auth: HtpasswdSettings | None,
) -> None:
    secretive = [upstream.namespace for upstream in upstreams if upstream.has_credentials]
    exposed = ", ".join(map(str, find_exposed(http.listeners)))
    if auth is not None and exposed and http.tls is None:
        message = (
            f"passwords cross the network to {exposed} as clear text: configure http.tls "
            "(a dockerd that has it as a mirror even sends its password of Docker Hub)"
        )
        root.section("http").warn("addr", message)
    elif secretive and exposed and not _asks_clients(http, auth):
        message = (
            f"EVERYONE who can connect to {exposed} can read all that the configured credentials "
            f"can read at {', '.join(secretive)}, private content too"
        )
        root.section("http").warn("addr", message)


def _asks_clients(http: HTTPSettings, auth: HtpasswdSettings | None) -> bool:
    """Whether only known clients are served, by a password or by a certificate."""
    has_certificates = http.tls is not None and http.tls.clientauth is ClientAuth.REQUIRE_AND_VERIFY
    return auth is not None or has_certificates


def _choose_directory(storage: Reader, environ: Mapping[str, str]) -> Path:
    """Choose the data directory; none is made here."""
    for driver in OTHER_DRIVERS:
        if driver in storage:
            storage.add_problem(driver, f"the storage driver {driver}", "filesystem")
    rootdirectory = storage.section("filesystem").text("rootdirectory")
    if "inmemory" in storage:
        if "filesystem" in storage:
            storage.add_problem("inmemory", "two storage drivers", "one")
        # Not guessable, as others may write to the same place.
        directory = Path(tempfile.gettempdir(), f"moorage-{secrets.token_hex(8)}")
        storage.warn("inmemory", f"for tests: content goes to {directory}, anew at each start")
        return directory
    return Path(rootdirectory).absolute() if rootdirectory else _cache_home(environ) / "moorage"


def _cache_home(environ: Mapping[str, str]) -> Path:
    """Source: XDG Base Directory Specification, which ignores relative paths."""
    configured = Path(environ.get("XDG_CACHE_HOME", ""))
    home = environ.get("HOME")
    return configured if configured.is_absolute() else Path(home or Path.home(), ".cache")


def _build_eviction(eviction: Reader) -> EvictionSettings:
    maxsize = eviction.value(
        "maxsize", _parse_maxsize, Share(_EVICTION.maxsize_bytes, _EVICTION.maxsize_fraction)
    )
    minfree = eviction.value(
        "minfree", parse_share, Share(_EVICTION.minfree_bytes, _EVICTION.minfree_fraction)
    )
    high = eviction.value("highwatermark", parse_fraction, _EVICTION.highwatermark_fraction)
    low = eviction.value("lowwatermark", parse_fraction, _EVICTION.lowwatermark_fraction)
    if low > high:
        eviction.add_problem("lowwatermark", f"{low:.0%}", f"at most highwatermark, {high:.0%}")
    return EvictionSettings(
        maxsize_bytes=maxsize.size_bytes,
        maxsize_fraction=maxsize.fraction,
        minfree_bytes=minfree.size_bytes,
        minfree_fraction=minfree.fraction,
        highwatermark_fraction=high,
        lowwatermark_fraction=low,
        interval_s=eviction.value("interval", _parse_period, _EVICTION.interval_s),
        policy=eviction.value("policy", _parse_policy, _EVICTION.policy),
        pins=tuple(eviction.values("pins", parse_pin)),
    )


def _build_verify(verify: Reader) -> VerifySettings:
    return VerifySettings(
        interval_s=verify.value("interval", parse_duration_s, _VERIFY.interval_s),
        rate_bytes_s=verify.value("rate", _parse_rate, _VERIFY.rate_bytes_s),
    )


def _build_log(root: Reader) -> LogSettings:
    log = root.section("log")
    # `loglevel` is what `log.level` was called before; the new name wins.
    level = log.value("level", _parse_level, root.value("loglevel", _parse_level, _LOG.level))
    is_disabled = log.section("accesslog").value("disabled", parse_bool, False)
    return LogSettings(
        level=level,
        formatter=LogFormat(log.value("formatter", _parse_format, _LOG.formatter.value)),
        is_access_log_enabled=not is_disabled,
        fields=_read_fields(log.section("fields")),
    )


def _read_fields(fields: Reader) -> dict[str, str]:
    """Read the user's own fields of log lines; what is not a single value is written as JSON."""
    nodes = {name: fields.node(name) for name in fields.keys}
    return {
        name: node if isinstance(node, str) else json.dumps(node) for name, node in nodes.items()
    }


def _parse_maxsize(text: str) -> Share:
    share = parse_share(text)
    if not (share.size_bytes or share.fraction):
        raise InvalidValue("more than nothing: 80% of the file system, a size or bytes")
    return share


def _parse_rate(text: str) -> int:
    rate_bytes_s = parse_size_bytes(text)
    if not rate_bytes_s:
        raise InvalidValue("more than 0 bytes a second (interval: 0 is off)")
    return rate_bytes_s


def _parse_period(text: str) -> float:
    period_s = parse_duration_s(text)
    if not period_s:
        raise InvalidValue("a duration of more than nothing")
    return period_s


def _parse_maxtags(text: str) -> int:
    maxtags = parse_int(text)
    if maxtags < 0:
        raise InvalidValue("a whole number, 0 or more")
    return maxtags
