"""What a changed configuration changes at once, and what is named as needing a restart."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.settings import (
    EngineSettings,
    EvictionSettings,
    HelperSettings,
    UpstreamSettings,
    VerifySettings,
)
from server.reload import plan_reload
from server.settings import (
    AccessRule,
    AccessSettings,
    ClientAuth,
    HtpasswdSettings,
    HTTPSettings,
    Listener,
    LogFormat,
    LogSettings,
    ServerSettings,
    TLSSettings,
)

HUB = UpstreamSettings("docker.io", "https://hub.example", ("docker.io",), "ci", "old secret")
GHCR = UpstreamSettings("ghcr.io", "https://ghcr.io", ("ghcr.io",))
TLS = TLSSettings("/c.pem", "/k.pem")
BASE = ServerSettings(
    EngineSettings(Path("/srv/data"), (HUB, GHCR)),
    HTTPSettings(tls=TLS, debug_token="the operator's old one"),
    auth=HtpasswdSettings("realm", Path("/accounts")),
    access=AccessSettings(rules=(AccessRule(allow=("docker.io/*",)),)),
)


def with_http(**changes: object) -> ServerSettings:
    return replace(BASE, http=replace(BASE.http, **changes))  # type: ignore[arg-type]  # each test knows its own


def with_engine(**changes: object) -> ServerSettings:
    return replace(BASE, engine=replace(BASE.engine, **changes))  # type: ignore[arg-type]  # as above


def with_hub(**changes: object) -> ServerSettings:
    return with_engine(upstreams=(replace(HUB, **changes), GHCR))  # type: ignore[arg-type]  # as above


def test_nothing_changes_where_nothing_differs() -> None:
    plan = plan_reload(BASE, BASE)
    assert (plan.settings, plan.changes, plan.needs_restart) == (BASE, (), ())


@pytest.mark.parametrize(
    ("new", "keys"),
    [
        (replace(BASE, log=LogSettings(level="debug")), ("log.level",)),
        (replace(BASE, log=LogSettings(is_access_log_enabled=False)), ("log.accesslog.disabled",)),
        (replace(BASE, log=LogSettings(formatter=LogFormat.JSON)), ("log.formatter",)),
        (with_http(headers=(("X-A", "b"),)), ("http.headers.X-A",)),
        (with_http(draintimeout_s=1.0), ("http.draintimeout",)),
        (with_http(tls=replace(TLS, certificate="/d.pem")), ("http.tls.certificate",)),
        (
            with_http(
                tls=replace(TLS, clientcas=("/ca",), clientauth=ClientAuth.REQUIRE_AND_VERIFY)
            ),
            ("http.tls.clientcas", "http.tls.clientauth"),
        ),
        (with_hub(ttl_s=1.0, tagttl_s=2.0, negativettl_s=3.0),
         ("proxy.ttl", "proxy.tagttl", "proxy.negativettl")),
        (with_hub(username="bob"), ("proxy.username",)),
        (with_hub(password="new secret"), ("proxy.password",)),
        (with_hub(helper=HelperSettings("docker-credential-x")), ("proxy.exec.command",)),
        (with_hub(ca="/ca.pem"), ("proxy.ca",)),
        (with_engine(upstreams=(HUB, replace(GHCR, tagttl_s=9.0))), ("upstreams.ghcr.io.tagttl",)),
        (with_engine(eviction=EvictionSettings(policy="lru")), ("eviction.policy",)),
        (with_engine(eviction=EvictionSettings(pins=("a/b:c",))), ("eviction.pins",)),
        (with_engine(verify=VerifySettings(interval_s=0.0)), ("verify.interval",)),
        (replace(BASE, auth=HtpasswdSettings("realm", Path("/others"))),
         ("auth.htpasswd.path",)),
        (replace(BASE, access=AccessSettings()), ("access.rules",)),
    ],
)  # fmt: skip
def test_what_can_change_changes(new: ServerSettings, keys: tuple[str, ...]) -> None:
    plan = plan_reload(BASE, new)
    assert (plan.settings, plan.changes, plan.needs_restart) == (new, keys, ())


@pytest.mark.parametrize(
    ("new", "keys"),
    [
        (with_http(listeners=(Listener("", 1),)), {"http.addr"}),
        (with_http(debug_listeners=(Listener("", 1),)), {"http.debug.addr"}),
        (with_http(prefix="/p/"), {"http.prefix"}),
        (with_http(debug_token="another one, as the first was seen"), {"http.debug.token"}),
        (with_engine(data_directory=Path("/else")), {"storage.filesystem.rootdirectory"}),
        (with_hub(namespaces=("docker.io", "x")), {"proxy.namespaces"}),
        (with_hub(max_connections=1), {"proxy.maxconnections"}),
        (replace(BASE, tags_max=1, catalog_max=1), {"tags.maxtags", "catalog.maxentries"}),
    ],
)
def test_what_cannot_change_is_named_and_stays(new: ServerSettings, keys: set[str]) -> None:
    plan = plan_reload(BASE, new)
    assert (plan.settings, plan.changes, set(plan.needs_restart)) == (BASE, (), keys)


@pytest.mark.parametrize(
    ("new", "key"),
    [
        (with_http(tls=None), "http.tls.certificate"),
        (replace(BASE, auth=None), "auth.htpasswd.path"),
        (replace(BASE, access=None), "access.rules"),
        (with_engine(upstreams=(HUB,)), "upstreams.ghcr.io.remoteurl"),
        (
            with_engine(
                upstreams=(HUB, GHCR, UpstreamSettings("quay.io", "https://quay.io", ("quay.io",)))
            ),
            "upstreams.quay.io.remoteurl",
        ),
    ],
)
def test_what_comes_or_goes_needs_a_restart(new: ServerSettings, key: str) -> None:
    plan = plan_reload(BASE, new)
    assert (plan.settings, plan.changes) == (BASE, ())
    assert key in plan.needs_restart


def test_what_can_change_does_so_beside_what_cannot() -> None:
    new = replace(
        with_http(listeners=(Listener("", 1),), headers=(("X-A", "b"),)),
        log=LogSettings(level="debug"),
    )
    plan = plan_reload(BASE, new)
    assert plan.changes == ("log.level", "http.headers.X-A")
    assert plan.needs_restart == ("http.addr",)


def test_the_credentials_of_another_registry_are_not_taken() -> None:
    plan = plan_reload(BASE, with_hub(url="https://other.example", password="its own"))
    assert plan.settings == BASE
    assert set(plan.needs_restart) == {"proxy.remoteurl", "proxy.password"}


@pytest.mark.parametrize("who", [HUB, GHCR])
def test_being_somebody_or_nobody_is_decided_at_the_start(who: UpstreamSettings) -> None:
    username, password = (None, None) if who.has_credentials else ("bob", "secret")
    others = [each for each in BASE.engine.upstreams if each is not who]
    changed = replace(who, username=username, password=password, tagttl_s=7.0)
    upstreams = tuple(sorted([*others, changed], key=lambda each: each.namespace))
    plan = plan_reload(BASE, with_engine(upstreams=upstreams))
    assert [key.rpartition(".")[2] for key in plan.changes] == ["tagttl"]
    assert {key.rpartition(".")[2] for key in plan.needs_restart} == {"username", "password"}
