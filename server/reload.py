"""What a configuration that is read again changes, and what it cannot change while we run.

Invariant: the settings in force are always one whole, consistent value: the former one, with what
can change replaced by what is configured now. What differs beyond that is named, and keeps its
former value. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from engine.settings import EngineSettings, UpstreamSettings
from server.config_render import render
from server.settings import HTTPSettings, ServerSettings


@dataclass(frozen=True, slots=True)
class Reload:
    """`settings` are those in force from now on; keys are named as in `config.yml`."""

    settings: ServerSettings
    changes: tuple[str, ...]
    needs_restart: tuple[str, ...]


def plan_reload(old: ServerSettings, new: ServerSettings) -> Reload:
    """Decide what of `new` takes the place of `old`."""
    merged = replace(
        old,
        engine=_merge_engine(old.engine, new.engine),
        http=_merge_http(old.http, new.http),
        log=new.log,
        # Whether clients are asked who they are, and judged by it, is decided at the start.
        auth=new.auth if old.auth and new.auth else old.auth,
        access=new.access if old.access and new.access else old.access,
    )
    return Reload(merged, _find_differences(old, merged), _find_differences(merged, new))


def _merge_engine(old: EngineSettings, new: EngineSettings) -> EngineSettings:
    found = {upstream.namespace: upstream for upstream in new.upstreams}
    return replace(
        old,
        upstreams=tuple(_merge_upstream(each, found.get(each.namespace)) for each in old.upstreams),
        eviction=new.eviction,
        verify=new.verify,
    )


def _merge_upstream(old: UpstreamSettings, new: UpstreamSettings | None) -> UpstreamSettings:
    # The credentials of another registry must not go to the one that is still asked.
    if new is None or new.url != old.url:
        return old
    merged = replace(new, namespaces=old.namespaces, max_connections=old.max_connections)
    if new.has_credentials == old.has_credentials:
        return merged
    # What is fetched as nobody is public. That must not change while something is being fetched.
    return replace(merged, username=old.username, password=old.password, helper=old.helper)


def _merge_http(old: HTTPSettings, new: HTTPSettings) -> HTTPSettings:
    return replace(
        old,
        headers=new.headers,
        draintimeout_s=new.draintimeout_s,
        tls=new.tls if old.tls and new.tls else old.tls,
    )


def _find_differences(one: ServerSettings, other: ServerSettings) -> tuple[str, ...]:
    ours, theirs = dict(_flatten(one)), dict(_flatten(other))
    keys = dict.fromkeys((*ours, *theirs))
    return tuple(key for key in keys if ours.get(key) != theirs.get(key))


def _flatten(settings: ServerSettings) -> Iterator[tuple[str, object]]:
    """Iterate over key paths and values, secrets too: only the paths may be shown."""
    yield from _walk("", render(settings))
    default, *others = settings.engine.upstreams
    yield "proxy.password", default.password
    for upstream in others:
        yield f"upstreams.{upstream.namespace}.password", upstream.password
    yield "http.debug.token", settings.http.debug_token


def _walk(path: str, node: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        inner = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _walk(inner, value)
        else:
            yield inner, value
