"""Configurations: what is written is read back, and no text whatever brings a traceback."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.settings import (
    EngineSettings,
    EvictionSettings,
    HelperSettings,
    UpstreamSettings,
    VerifySettings,
)
from server.config import ConfigError, load, to_yaml
from server.config_render import render
from server.config_values import (
    format_duration,
    format_fraction,
    parse_duration_s,
    parse_fraction,
)
from server.settings import (
    HtpasswdSettings,
    HTTPSettings,
    Listener,
    LogFormat,
    LogSettings,
    ServerSettings,
)

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
durations = st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000)
percents = st.integers(1, 1000).map(lambda tenths: tenths / 1000)
hosts = st.sampled_from(["", "127.0.0.1", "::1", "host.example"])
listeners = st.one_of(
    st.builds(Listener, hosts, st.integers(0, 65535)),
    st.from_regex(r"/[a-z]{1,9}\.sock", fullmatch=True).map(lambda path: Listener(path=path)),
)


def upstreams(namespace: str) -> st.SearchStrategy[UpstreamSettings]:
    return st.builds(
        UpstreamSettings,
        namespace=st.just(namespace),
        url=st.sampled_from(["https://registry.example", "http://127.0.0.1:5000/path"]),
        namespaces=st.just((namespace,)),
        username=st.none() | texts,
        password=st.none() | st.just("***"),
        helper=st.none() | st.builds(HelperSettings, texts, st.none() | durations),
        ttl_s=durations,
        tagttl_s=durations,
        negativettl_s=durations,
        max_connections=st.integers(1, 1000),
    )


evictions = st.builds(
    EvictionSettings,
    maxsize_bytes=st.integers(1, 2**60),
    maxsize_fraction=st.none(),
    minfree_bytes=st.none(),
    minfree_fraction=percents,
    highwatermark_fraction=st.just(0.95),
    lowwatermark_fraction=percents.filter(lambda fraction: fraction <= 0.95),
    interval_s=durations.filter(bool),
    pins=st.lists(st.just("docker.io/library/python:3.*"), max_size=1).map(tuple),
)
settings_values = st.builds(
    ServerSettings,
    engine=st.builds(
        EngineSettings,
        data_directory=texts.map(lambda name: Path("/", name.replace("/", "_"))),
        upstreams=st.tuples(upstreams("docker.io"), upstreams("ghcr.io"), upstreams("h.example:1")),
        eviction=evictions,
        verify=st.builds(VerifySettings, durations, st.integers(1, 2**60)),
    ),
    http=st.builds(
        HTTPSettings,
        listeners=st.lists(listeners, min_size=1, unique=True).map(tuple),
        headers=st.lists(
            st.tuples(st.just("X-A"), st.from_regex(r"[!-~]([ -~]*[!-~])?", fullmatch=True))
        ).map(tuple),
        prefix=st.sampled_from(["/", "/a/b/"]),
        draintimeout_s=durations,
        debug_listeners=st.lists(listeners, unique=True).map(tuple),
        prometheus_path=st.sampled_from(["", "/metrics"]),
    ),
    log=st.builds(
        LogSettings,
        level=st.sampled_from(["error", "warn", "info", "debug"]),
        formatter=st.sampled_from(LogFormat),
        is_access_log_enabled=st.booleans(),
        fields=st.dictionaries(texts, texts),
    ),
    auth=st.none()
    | st.builds(
        HtpasswdSettings, texts, st.integers(0, 99).map(lambda number: Path(f"/absent/{number}"))
    ),
    tags_max=st.integers(0, 10**6),
    catalog_max=st.integers(1, 10**6),
)


def load_text(text: str) -> ServerSettings:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "config.yml")
        file.write_text(text, encoding="utf-8")
        return load(file, {})


def find_lines(text: str | None, environ: Mapping[str, str]) -> list[str]:
    """Give what is said of a configuration; anything but `ConfigError` is a failure."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "config.yml") if text is not None else None
        if file is not None:
            file.write_text(text or "", encoding="utf-8")
        try:
            return list(load(file, environ).warnings)
        except ConfigError as exc:
            return [str(problem) for problem in exc.problems]


@given(settings_values)
def test_rendered_settings_load_as_the_same_settings(settings: ServerSettings) -> None:
    loaded = load_text(to_yaml(render(settings)))
    assert (loaded.engine, loaded.http, loaded.log) == (
        settings.engine,
        settings.http,
        settings.log,
    )
    assert loaded.auth == settings.auth
    assert (loaded.tags_max, loaded.catalog_max) == (settings.tags_max, settings.catalog_max)


@given(st.text())
def test_of_any_file_each_thing_is_said_in_one_line(text: str) -> None:
    lines = find_lines(text, {}) + find_lines("version: 0.1\n" + text, {})
    assert all(line.isprintable() for line in lines)


@given(st.from_regex(r"REGISTRY_[A-Z0-9_.]*", fullmatch=True), st.text())
def test_of_any_variable_each_thing_is_said_in_one_line(variable: str, value: str) -> None:
    assert all(line.isprintable() for line in find_lines(None, {variable: value}))


heads = st.sampled_from(
    ["LOG", "STORAGE", "AUTH", "HTTP", "PROXY", "UPSTREAMS", "EVICTION", "VERIFY", "HEALTH"]
)
steps = st.sampled_from(
    [
        "FIELDS",
        "FILESYSTEM",
        "HTPASSWD",
        "REALM",
        "PATH",
        "HEADERS",
        "TLS",
        "DEBUG",
        "EXEC",
        "PINS",
        "ADDR",
        "0",
        "1",
        "X.Y",
        "",
    ]
)
variables = st.builds(
    lambda head, tail: "_".join(["REGISTRY", head, *tail]), heads, st.lists(steps, max_size=3)
)
values = st.sampled_from(
    ["", "x", "1", "[a, b]", "{a: b}", "{x.y: {}}", "inmemory", "1h", ":1", "{pins: {a: [b]}}"]
)


@given(st.dictionaries(variables, values, max_size=4))
def test_of_any_mixture_of_variables_each_thing_is_said_in_one_line(
    environ: dict[str, str],
) -> None:
    assert all(line.isprintable() for line in find_lines(None, environ))


@given(st.integers(0, 2**50))
def test_durations_are_read_back(nanoseconds: int) -> None:
    assert parse_duration_s(format_duration(nanoseconds / 10**9)) == nanoseconds / 10**9


@given(st.integers(0, 10**6).map(lambda millionths: millionths / 10**6))
def test_fractions_are_read_back(fraction: float) -> None:
    assert parse_fraction(format_fraction(fraction)) == fraction
