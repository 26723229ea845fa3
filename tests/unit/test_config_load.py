"""Loading: precedence, defaults, and what is said of a configuration that is wrong."""

from pathlib import Path

import pytest

from engine.settings import EngineSettings, EvictionSettings, UpstreamSettings, VerifySettings
from server.config import ConfigError, load
from server.settings import HTTPSettings, Listener, LogFormat, LogSettings, ServerSettings

HOME = {"HOME": "/home/bob"}


def load_text(tmp_path: Path, text: str, version: str = "version: 0.1\n") -> ServerSettings:
    file = tmp_path / "config.yml"
    file.write_text(version + text)
    return load(file, HOME)


def refuse_text(tmp_path: Path, text: str, version: str = "version: 0.1\n") -> list[str]:
    """Give the lines that are said of `text`, without the file's name, which begins each."""
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text, version)
    lines = str(caught.value).splitlines()
    prefix = f"{tmp_path / 'config.yml'}: "
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def test_without_anything_it_is_a_mirror_of_docker_hub_on_loopback() -> None:
    assert load(None, HOME) == ServerSettings(
        engine=EngineSettings(
            data_directory=Path("/home/bob/.cache/moorage"),
            upstreams=(
                UpstreamSettings(
                    namespace="docker.io",
                    url="https://registry-1.docker.io",
                    namespaces=("docker.io", "index.docker.io", "registry-1.docker.io"),
                ),
            ),
        )
    )


def test_every_key_reaches_its_setting(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        """
log:
  accesslog: {disabled: true}
  level: WARN
  formatter: logstash
  fields: {service: registry, zone: 3, tags: [a, b]}
storage: {filesystem: {rootdirectory: /srv/mirror}}
http:
  addr: [":5000", "[::1]:5001, unix:/run/moorage.sock"]
  prefix: /mirror/
  draintimeout: 1m
  headers: {X-A: [b, c]}
  debug: {addr: "localhost:5001", prometheus: {enabled: true, path: /m}}
  tls: {certificate: "", key: ""}
catalog: {maxentries: 7}
tags: {maxtags: 9}
proxy:
  remoteurl: https://a.example/
  username: bob
  password: 0123
  ttl: 24h
  tagttl: 1m
  negativettl: 1s
  namespaces: [A.example, docker.io]
  maxconnections: 4
upstreams:
  ghcr.io:
    remoteurl: https://ghcr.io
    exec: {command: docker-credential-x, lifetime: 1h}
eviction:
  maxsize: 100GB
  minfree: 10%
  highwatermark: 90%
  lowwatermark: 80%
  interval: 1m
  policy: lru
  pins: ["docker.io/library/python:3.*"]
verify: {interval: 0, rate: 1MiB}
""",
    )
    assert settings.engine == EngineSettings(
        data_directory=Path("/srv/mirror"),
        upstreams=(
            UpstreamSettings(
                namespace="a.example",
                url="https://a.example",
                namespaces=("a.example", "docker.io"),
                username="bob",
                password="0123",
                ttl_s=24 * 3600,
                tagttl_s=60,
                negativettl_s=1,
                max_connections=4,
            ),
            settings.engine.upstreams[1],
        ),
        eviction=EvictionSettings(
            maxsize_bytes=100 * 1000**3,
            maxsize_fraction=None,
            minfree_bytes=None,
            minfree_fraction=0.10,
            highwatermark_fraction=0.9,
            lowwatermark_fraction=0.8,
            interval_s=60,
            policy="lru",
            pins=("docker.io/library/python:3.*",),
        ),
        verify=VerifySettings(interval_s=0, rate_bytes_s=1024**2),
    )
    assert settings.http == HTTPSettings(
        listeners=(Listener("", 5000), Listener("::1", 5001), Listener(path="/run/moorage.sock")),
        headers=(("X-A", "b"), ("X-A", "c")),
        prefix="/mirror/",
        draintimeout_s=60,
        debug_listeners=(Listener("localhost", 5001),),
        prometheus_path="/m",
    )
    assert settings.log == LogSettings(
        level="warn",
        formatter=LogFormat.LOGSTASH,
        is_access_log_enabled=False,
        fields={"service": "registry", "zone": "3", "tags": '["a", "b"]'},
    )
    assert (settings.catalog_max, settings.tags_max) == (7, 9)


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "version: 0.1\n"
        "proxy: {remoteurl: 'https://file.example', tagttl: 1s}\n"
        "http: {net: unix, addr: /run/x.sock}\n"
        "storage: inmemory\n"
    )
    settings = load(
        file,
        HOME | {"REGISTRY_PROXY_REMOTEURL": "https://env.example", "REGISTRY_PROXY_TAGTTL": "2s"},
        upstream="https://flag.example/",
        data=tmp_path / "data",
        listen="127.0.0.1:0,[::1]:0",
    )
    assert settings.engine.upstreams[0].url == "https://flag.example"
    assert settings.engine.upstreams[0].tagttl_s == 2
    assert settings.engine.data_directory == tmp_path / "data"
    assert settings.http.listeners == (Listener("127.0.0.1", 0), Listener("::1", 0))
    assert settings.warnings == ()


def test_a_problem_with_a_flag_names_the_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, HOME, upstream="registry-1.docker.io", listen="5000")
    upstream, listen = sorted(str(caught.value).splitlines(), reverse=True)
    assert upstream.startswith("--upstream: proxy.remoteurl: found 'registry-1.docker.io'")
    assert listen.startswith("--listen: http.addr: found '5000', expected HOST:PORT")


def test_a_flag_does_not_hide_that_its_section_is_no_mapping(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "version: 0.1\nstorage: [filesystem]\nproxy: {remoteurl: 'https://x.example'}\n"
    )
    with pytest.raises(ConfigError, match=r"storage: found a list, expected a mapping"):
        load(file, HOME, data=tmp_path)


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"HOME": "/home/bob", "XDG_CACHE_HOME": "/var/cache"}, "/var/cache/moorage"),
        ({"HOME": "/home/bob", "XDG_CACHE_HOME": "relative"}, "/home/bob/.cache/moorage"),
        ({"HOME": "/home/bob", "XDG_CACHE_HOME": ""}, "/home/bob/.cache/moorage"),
    ],
)
def test_the_default_data_directory_is_the_users_cache(
    environ: dict[str, str], directory: str
) -> None:
    assert load(None, environ).engine.data_directory == Path(directory)


def test_inmemory_content_goes_to_a_new_temporary_directory_each_time(tmp_path: Path) -> None:
    first, second = (load_text(tmp_path, "storage: {inmemory: }\n") for _ in range(2))
    assert first.engine.data_directory != second.engine.data_directory
    assert not first.engine.data_directory.exists()
    assert str(first.engine.data_directory) in "\n".join(first.warnings)


def test_a_number_without_a_unit_is_nanoseconds(tmp_path: Path) -> None:
    settings = load_text(tmp_path, "proxy: {remoteurl: 'https://x.example', ttl: 5000000000}\n")
    assert settings.engine.upstreams[0].ttl_s == 5


def test_log_level_beats_its_old_name(tmp_path: Path) -> None:
    assert load_text(tmp_path, "loglevel: error\n").log.level == "error"
    assert load_text(tmp_path, "loglevel: error\nlog: {level: debug}\n").log.level == "debug"


def test_limits_that_are_not_positive_mean_the_default(tmp_path: Path) -> None:
    assert load_text(tmp_path, "catalog: {maxentries: -1}\n").catalog_max == 1000


def test_metrics_have_a_default_path_and_are_off_by_default(tmp_path: Path) -> None:
    enabled = load_text(tmp_path, "http: {debug: {prometheus: {enabled: true}}}\n")
    assert enabled.http.prometheus_path == "/metrics"
    assert any("http.debug.addr is not set" in warning for warning in enabled.warnings)
    assert load_text(tmp_path, "http: {debug: {addr: ':1'}}\n").http.prometheus_path == ""


@pytest.mark.parametrize("version", ["", "version: 0.2\n", "version: 1\n", "version: 0.10\n"])
def test_a_file_of_another_version_is_refused(tmp_path: Path, version: str) -> None:
    (line,) = refuse_text(tmp_path, "log: {level: info}\n", version)
    assert line.endswith("expected a mapping with `version: 0.1`")


@pytest.mark.parametrize("version", ["version: 0.1\n", "version: '0.1'\n", '---\nversion: "0.1"\n'])
def test_a_version_may_be_quoted(tmp_path: Path, version: str) -> None:
    assert load_text(tmp_path, "log: {level: info}\n", version).log.level == "info"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prxy: {}", "prxy: found an unknown key, expected proxy, perhaps"),
        ("http: {Addr: x}", "http.Addr: found an unknown key, expected addr, perhaps"),
        ("verify: {zzz: 1}", "verify.zzz: found an unknown key, expected one of interval, rate"),
        (
            "health: {tcp: [{adr: x}]}",
            "health.tcp[0].adr: found an unknown key, expected addr, perhaps",
        ),
        ("proxy: [a]", "proxy: found a list, expected a mapping"),
        ("proxy: a", "proxy: found a single value, expected a mapping"),
        ("proxy: {ttl: [1h]}", "proxy.ttl: found a list, expected a single value"),
        ("eviction: {pins: {a: b}}", "eviction.pins: found a mapping, expected a list"),
        ("upstreams: [a]", "upstreams: found a list, expected a mapping"),
        ("storage: s3", "storage.s3: found the storage driver s3, expected filesystem"),
        ("storage: {s3: {}}", "storage.s3: found the storage driver s3, expected filesystem"),
        (
            "eviction: {lowwatermark: 96%}",
            "eviction.lowwatermark: found 96%, expected at most highwatermark, 95%",
        ),
    ],
)
def test_a_problem_is_one_line_with_path_found_and_expected(
    tmp_path: Path, text: str, line: str
) -> None:
    assert refuse_text(tmp_path, text) == [line]


@pytest.mark.parametrize(
    ("text", "key_path"),
    [
        ("log: {level: loud}", "log.level"),
        ("log: {formatter: xml}", "log.formatter"),
        ("log: {accesslog: {disabled: 1}}", "log.accesslog.disabled"),
        ("loglevel: loud", "loglevel"),
        ("http: {addr: ['5000']}", "http.addr"),
        ("http: {net: udp}", "http.net"),
        ("http: {prefix: 'a b'}", "http.prefix"),
        ("http: {draintimeout: 5d}", "http.draintimeout"),
        ("http: {headers: {'X Y': [a]}}", "http.headers.X Y"),
        ("http: {headers: {Content-Length: ['1']}}", "http.headers.Content-Length"),
        ('http: {headers: {X: ["a\\nb"]}}', "http.headers.X"),
        ("http: {debug: {addr: x}}", "http.debug.addr"),
        ("http: {debug: {prometheus: {enabled: maybe}}}", "http.debug.prometheus.enabled"),
        ("http: {debug: {prometheus: {path: m}}}", "http.debug.prometheus.path"),
        ("http: {tls: {certificate: /c.pem, key: /k.pem}}", "http.tls.certificate"),
        ("http: {tls: {letsencrypt: {cachefile: /c}}}", "http.tls.letsencrypt"),
        ("auth: silly", "auth.silly"),
        ("auth: {token: }", "auth.token"),
        ("auth: {ldap: {}}", "auth.ldap"),
        ("storage: {floppy: {}}", "storage.floppy"),
        ("storage: {filesystem: {}, inmemory: }", "storage.inmemory"),
        ("catalog: {maxentries: many}", "catalog.maxentries"),
        ("tags: {maxtags: -1}", "tags.maxtags"),
        ("proxy: {remoteurl: 'ftp://x'}", "proxy.remoteurl"),
        ("proxy: {remoteurl: 'https://x.example', ttl: -1h}", "proxy.ttl"),
        ("proxy: {remoteurl: 'https://x.example', tagttl: soon}", "proxy.tagttl"),
        ("proxy: {remoteurl: 'https://x.example', negativettl: 5 s}", "proxy.negativettl"),
        ("proxy: {remoteurl: 'https://x.example', maxconnections: 0}", "proxy.maxconnections"),
        ("proxy: {remoteurl: 'https://x.example', exec: {lifetime: 1h}}", "proxy.exec.command"),
        (
            "proxy: {remoteurl: 'https://x.example', exec: {command: c, lifetime: x}}",
            "proxy.exec.lifetime",
        ),
        ("eviction: {maxsize: 0}", "eviction.maxsize"),
        ("eviction: {minfree: some}", "eviction.minfree"),
        ("eviction: {highwatermark: 95}", "eviction.highwatermark"),
        ("eviction: {lowwatermark: 0.9}", "eviction.lowwatermark"),
        ("eviction: {interval: 0s}", "eviction.interval"),
        ("eviction: {policy: random}", "eviction.policy"),
        ("eviction: {pins: [python]}", "eviction.pins"),
        ("verify: {interval: never}", "verify.interval"),
        ("verify: {rate: 0}", "verify.rate"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(tmp_path: Path, text: str, key_path: str) -> None:
    lines = refuse_text(tmp_path, text)
    assert [line.partition(": found ")[0] for line in lines] == [key_path]


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    lines = refuse_text(tmp_path, "prxy: {}\nlog: {level: loud}\neviction: {pins: [a, b]}\n")
    key_paths = sorted(line.partition(": ")[0] for line in lines)
    assert key_paths == ["eviction.pins", "eviction.pins", "log.level", "prxy"]


def test_a_key_that_is_not_used_is_warned_of_once_with_its_path(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "proxy: {remoteurl: 'https://x.example', cachewritetimeout: 5m}\n"
        "storage: {cache: {blobdescriptor: inmemory}}\n"
        "redis: {addrs: ['localhost:6379'], tls: {rootcas: [a]}}\n",
    )
    file = tmp_path / "config.yml"
    assert settings.warnings == tuple(
        f"{file}: {key_path}: known to distribution, but not used here"
        for key_path in ("proxy.cachewritetimeout", "storage.cache.blobdescriptor", "redis")
    )


def test_a_file_without_an_upstream_mirrors_docker_hub_and_says_so(tmp_path: Path) -> None:
    settings = load_text(tmp_path, "http: {addr: ':5000'}\n")
    assert settings.engine.upstreams[0].url == "https://registry-1.docker.io"
    (warning,) = settings.warnings
    assert "proxy.remoteurl: not set: this is a mirror of Docker Hub" in warning


@pytest.mark.parametrize(
    ("addr", "is_exposed"),
    [
        (":5000", True),
        ("0.0.0.0:5000", True),
        ("10.0.0.1:5000", True),
        ("mirror.example:5000", True),
        ("[::]:5000", True),
        ("127.0.0.1:5000,:5001", True),
        ("127.0.0.1:5000", False),
        ("127.9.9.9:5000", False),
        ("localhost:5000", False),
        ("[::1]:5000", False),
        ("unix:/run/x", False),
    ],
)
def test_credentials_behind_an_open_port_are_warned_of(
    tmp_path: Path, addr: str, is_exposed: bool
) -> None:
    text = f"http: {{addr: '{addr}'}}\nproxy: {{remoteurl: 'https://x.example'"
    with_credentials = load_text(tmp_path, text + ", username: bob, password: hunter2}\n")
    assert any("EVERYONE" in warning for warning in with_credentials.warnings) == is_exposed
    assert "hunter2" not in "\n".join(with_credentials.warnings)
    assert load_text(tmp_path, text + "}\n").warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: b: c",
        "\tx: 1",
        "a: &a [*a]",
        "a: *hunter2",
        "? [a]\n: b",
        "a: b\n---\nc: d\n",
        "a: \x07",
        "- a",
        "<<: a",
        "a: " + "[" * 2000,
    ],
)
def test_a_file_that_is_not_a_yaml_mapping_is_refused_in_one_line(
    tmp_path: Path, text: str
) -> None:
    version = "" if text.startswith(("-", "\t")) else "version: 0.1\n"
    (line,) = refuse_text(tmp_path, text, version)
    assert line.startswith("found ")
    assert "hunter2" not in line


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
    )
    (line,) = refuse_text(tmp_path, text)
    assert line == "found more than a configuration can hold, expected a YAML document"


def test_merged_mappings_give_way_to_a_mappings_own_keys(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "proxy: &slow {remoteurl: 'https://x.example', tagttl: 1m, ttl: 1h}\n"
        "upstreams: {ghcr.io: {tagttl: 2m, <<: *slow, remoteurl: 'https://ghcr.io'}}\n",
    )
    other = settings.engine.upstreams[1]
    assert (other.url, other.tagttl_s, other.ttl_s) == ("https://ghcr.io", 120, 3600)


def test_a_variable_changes_one_use_of_an_alias_only(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "version: 0.1\nproxy: &it {remoteurl: 'https://x.example'}\nupstreams: {y.example: *it}\n"
    )
    settings = load(file, HOME | {"REGISTRY_PROXY_REMOTEURL": "https://z.example"})
    assert [each.url for each in settings.engine.upstreams] == [
        "https://z.example",
        "https://x.example",
    ]


def test_a_repeated_key_counts_as_it_stands_last_and_is_warned_of(tmp_path: Path) -> None:
    settings = load_text(tmp_path, "log: {level: debug}\nlog: {level: error}\nproxy: {}\n")
    assert settings.log.level == "error"
    assert any("`log` at line 3, column 1 stands there twice" in w for w in settings.warnings)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "absent.yml", HOME)
    assert str(caught.value) == (
        f"{tmp_path / 'absent.yml'}: found No such file or directory, "
        "expected a readable configuration file"
    )
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="bytes that are not UTF-8"):
        load(binary, HOME)
