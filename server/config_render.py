"""Settings as a configuration again: what `check-config` shows.

Invariant: loading what this writes gives the same settings, but for secrets, which are masked.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from engine.settings import EngineSettings, EvictionSettings, UpstreamSettings
from server.config_values import format_duration, format_fraction
from server.settings import (
    AccessRule,
    AccessSettings,
    ClientAuth,
    HtpasswdSettings,
    HTTPSettings,
    LogSettings,
    ServerSettings,
    TLSSettings,
)

Plain: TypeAlias = str | int | bool | Sequence["Plain"] | Mapping[str, "Plain"]

MASK = "***"
_TOKEN_MASK = "*" * 16  # as long as one must be


def render(settings: ServerSettings) -> dict[str, Plain]:
    """Write `settings` as the keys of `config.yml`, the defaults too."""
    engine = settings.engine
    default, *others = engine.upstreams
    return {
        "version": "0.1",
        "log": _render_log(settings.log),
        "storage": {"filesystem": {"rootdirectory": str(engine.data_directory)}},
        "auth": _render_auth(settings.auth),
        **_render_access(settings.access),
        "http": _render_http(settings.http),
        "catalog": {"maxentries": settings.catalog_max},
        "tags": {"maxtags": settings.tags_max},
        "proxy": _render_upstream(default),
        "upstreams": {upstream.namespace: _render_upstream(upstream) for upstream in others},
        "eviction": _render_eviction(engine.eviction),
        "verify": _render_verify(engine),
    }


def _render_log(log: LogSettings) -> dict[str, Plain]:
    return {
        "accesslog": {"disabled": not log.is_access_log_enabled},
        "level": log.level,
        "formatter": log.formatter.value,
        "fields": log.fields,
    }


def _render_auth(auth: HtpasswdSettings | None) -> Plain:
    if auth is None:
        return "none"
    return {"htpasswd": {"realm": auth.realm, "path": str(auth.path)}}


def _render_access(access: AccessSettings | None) -> dict[str, Plain]:
    """Give no section where there are no rules: an empty one would deny everything."""
    if access is None:
        return {}
    default = "allow" if access.is_allowed_by_default else "deny"
    return {"access": {"default": default, "rules": [_render_rule(one) for one in access.rules]}}


def _render_rule(rule: AccessRule) -> dict[str, Plain]:
    lists: dict[str, Plain] = {
        "networks": list(rule.networks),
        "users": list(rule.users),
        "certificates": list(rule.certificates),
        "allow": list(rule.allow),
        "deny": list(rule.deny),
    }
    return {key: values for key, values in lists.items() if values}


def _render_http(http: HTTPSettings) -> dict[str, Plain]:
    headers: dict[str, list[str]] = {}
    for name, value in http.headers:
        headers.setdefault(name, []).append(value)
    prometheus: dict[str, Plain] = {"enabled": bool(http.prometheus_path)}
    if http.prometheus_path:
        prometheus["path"] = http.prometheus_path
    return {
        "addr": [str(listener) for listener in http.listeners],
        "prefix": http.prefix,
        "headers": headers,
        "draintimeout": format_duration(http.draintimeout_s),
        "tls": {} if http.tls is None else _render_tls(http.tls),
        "trustedproxies": list(http.trustedproxies),
        "proxyprotocol": http.has_proxy_header,
        "debug": {
            "addr": [str(listener) for listener in http.debug_listeners],
            "prometheus": prometheus,
            **({} if http.debug_token is None else {"token": _TOKEN_MASK}),
        },
    }


def _render_tls(tls: TLSSettings) -> dict[str, Plain]:
    rendered: dict[str, Plain] = {
        "certificate": tls.certificate,
        "key": tls.key,
        "clientcas": list(tls.clientcas),
        "minimumtls": tls.minimumtls,
        "ciphersuites": list(tls.ciphersuites),
    }
    if tls.clientauth is not ClientAuth.NONE:
        rendered["clientauth"] = tls.clientauth.value
    return rendered


def _render_upstream(upstream: UpstreamSettings) -> dict[str, Plain]:
    rendered: dict[str, Plain] = {"remoteurl": upstream.url}
    if upstream.username is not None:
        rendered["username"] = upstream.username
    if upstream.password is not None:
        rendered["password"] = MASK
    if upstream.helper is not None:
        helper: dict[str, Plain] = {"command": upstream.helper.command}
        if upstream.helper.lifetime_s is not None:
            helper["lifetime"] = format_duration(upstream.helper.lifetime_s)
        rendered["exec"] = helper
    files = {"ca": upstream.ca, "certificate": upstream.certificate, "key": upstream.key}
    rendered |= {key: path for key, path in files.items() if path is not None}
    return rendered | {
        "namespaces": list(upstream.namespaces),
        "ttl": format_duration(upstream.ttl_s),
        "tagttl": format_duration(upstream.tagttl_s),
        "negativettl": format_duration(upstream.negativettl_s),
        "maxconnections": upstream.max_connections,
        "insecure": upstream.is_insecure,
    }


def _render_eviction(eviction: EvictionSettings) -> dict[str, Plain]:
    return {
        "maxsize": _render_share(eviction.maxsize_bytes, eviction.maxsize_fraction),
        "minfree": _render_share(eviction.minfree_bytes, eviction.minfree_fraction),
        "highwatermark": _render_share(None, eviction.highwatermark_fraction),
        "lowwatermark": _render_share(None, eviction.lowwatermark_fraction),
        "interval": format_duration(eviction.interval_s),
        "policy": eviction.policy,
        "pins": list(eviction.pins),
    }


def _render_verify(engine: EngineSettings) -> dict[str, Plain]:
    return {
        "interval": format_duration(engine.verify.interval_s),
        "rate": engine.verify.rate_bytes_s,
    }


def _render_share(size_bytes: int | None, fraction: float | None) -> str | int:
    if size_bytes is not None:
        return size_bytes
    return format_fraction(fraction or 0.0)
