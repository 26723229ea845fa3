"""`REGISTRY_*` variables follow distribution's rules."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.settings import UpstreamSettings
from server.config import ConfigError, load
from server.settings import Listener, ServerSettings

HOME = {"HOME": "/home/bob"}


def load_with(environ: Mapping[str, str], path: Path | None = None) -> ServerSettings:
    return load(path, {**HOME, **environ})


def refuse(environ: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_with(environ)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(
        "version: 0.1\n"
        "log: {level: debug, fields: {Service: registry}}\n"
        "http: {addr: ':5000', headers: {X-Content-Type-Options: [nosniff]}}\n"
        "proxy: {remoteurl: 'https://a.example', username: bob}\n"
        "eviction: {pins: ['a.example/x:1', 'a.example/y:1']}\n"
    )
    return path


def test_underscores_separate_levels_and_the_environment_beats_the_file(file: Path) -> None:
    settings = load_with({"REGISTRY_PROXY_REMOTEURL": "https://b.example"}, file)
    default = settings.engine.upstreams[0]
    assert (default.url, default.username) == ("https://b.example", "bob")


def test_values_are_yaml() -> None:
    settings = load_with(
        {
            "REGISTRY_HTTP": "{addr: ['127.0.0.1:1', '127.0.0.1:2'], draintimeout: 60s}",
            "REGISTRY_LOG_FIELDS": "service: registry",
        }
    )
    assert settings.http.listeners == (Listener("127.0.0.1", 1), Listener("127.0.0.1", 2))
    assert settings.http.draintimeout_s == 60
    assert settings.log.fields == {"service": "registry"}


def test_a_scalar_stays_the_text_that_was_written() -> None:
    settings = load_with({"REGISTRY_PROXY_USERNAME": "yes", "REGISTRY_PROXY_PASSWORD": "0123"})
    assert settings.engine.upstreams[0].username == "yes"
    assert settings.engine.upstreams[0].password == "0123"


def test_an_empty_value_unsets(file: Path) -> None:
    assert load_with({"REGISTRY_PROXY_USERNAME": ""}, file).engine.upstreams[0].username is None


def test_list_elements_are_named_by_index_and_the_next_index_appends(file: Path) -> None:
    settings = load_with(
        {"REGISTRY_EVICTION_PINS_1": "a.example/z:1", "REGISTRY_EVICTION_PINS_2": "a.example/w:1"},
        file,
    )
    assert settings.engine.eviction.pins == ("a.example/x:1", "a.example/z:1", "a.example/w:1")


@pytest.mark.parametrize("index", ["1", "X", "-1", ""])
def test_an_index_beyond_the_next_is_refused(index: str) -> None:
    message = refuse({f"REGISTRY_EVICTION_PINS_{index}": "a/b:c"})
    assert message.startswith(f"REGISTRY_EVICTION_PINS_{index}: found '{index}'")


def test_keys_of_free_maps_are_lower_cased(file: Path) -> None:
    environ = {"REGISTRY_LOG_FIELDS_ENVIRONMENT": "ci", "REGISTRY_HTTP_HEADERS_X-FRAME": "[deny]"}
    settings = load_with(environ, file)
    assert settings.log.fields == {"Service": "registry", "environment": "ci"}
    assert ("x-frame", "deny") in settings.http.headers


def test_a_free_maps_key_is_replaced_whatever_its_case(file: Path) -> None:
    settings = load_with(
        {
            "REGISTRY_LOG_FIELDS_SERVICE": "mirror",
            "REGISTRY_HTTP_HEADERS_X-CONTENT-TYPE-OPTIONS": "[]",
        },
        file,
    )
    assert settings.log.fields == {"Service": "mirror"}
    assert settings.http.headers == ()


def test_variables_apply_in_lexical_order() -> None:
    # In the reverse order the second would undo the first.
    environ = {
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/srv/mirror",
        "REGISTRY_STORAGE": "filesystem",
    }
    assert load_with(environ).engine.data_directory == Path("/srv/mirror")


def test_a_bare_driver_may_stand_for_the_storage_section() -> None:
    settings = load_with({"REGISTRY_STORAGE": "inmemory"})
    assert settings.engine.data_directory.name.startswith("moorage-")
    assert any("storage.inmemory" in warning for warning in settings.warnings)


def test_two_storage_drivers_are_refused() -> None:
    environ = {
        "REGISTRY_STORAGE": "inmemory",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/srv/mirror",
    }
    assert "storage.inmemory: found two storage drivers" in refuse(environ)


def test_another_storage_driver_is_refused() -> None:
    message = refuse({"REGISTRY_STORAGE_S3_BUCKET": "images"})
    assert message == (
        "REGISTRY_STORAGE_S3_BUCKET: storage.s3: found the storage driver s3, expected filesystem"
    )


@pytest.mark.parametrize(
    "variable",
    [
        "REGISTRY_PORT",
        "REGISTRY_PORT_5000_TCP_ADDR",
        "REGISTRY_SERVICE_HOST",
        "REGISTRY_PROXY_SERVICE_HOST",
        "REGISTRY_STORAGE_SERVICE_HOST",
        "REGISTRY_http_addr",
        "REGISTRY_",
        "REGISTRY_HEALTH_FILE",  # distribution's name for it is FILECHECKERS
        "REGISTRY_PROXY_TTL_X",
    ],
)
def test_a_name_that_nobody_knows_is_warned_of_and_ignored(variable: str) -> None:
    settings = load_with({variable: "tcp://10.0.0.1:5000"})
    assert settings.warnings == (f"{variable}: names no known setting, ignored",)


def test_other_variables_are_nobodys_business() -> None:
    assert load_with({"REGISTRYX": "1", "DOCKER_REGISTRY_PROXY": "1"}).warnings == ()


def test_the_version_cannot_be_overridden(file: Path) -> None:
    assert load_with({"REGISTRY_VERSION": "9.9"}, file).log.level == "debug"


def test_names_that_distribution_derives_from_its_fields_are_known() -> None:
    settings = load_with(
        {
            "REGISTRY_HEALTH_FILECHECKERS_0_FILE": "/tmp/x",
            "REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES": "true",
        }
    )
    assert settings.warnings == (
        "REGISTRY_HEALTH_FILECHECKERS_0_FILE: health: known to distribution, but not used here",
        "REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES: notifications: "
        "known to distribution, but not used here",
    )


def test_upstreams_can_be_given_as_yaml_or_by_names_with_dots() -> None:
    whole = load_with({"REGISTRY_UPSTREAMS": "{ghcr.io: {tagttl: 5m}}"})
    dotted = load_with({"REGISTRY_UPSTREAMS_GHCR.IO_TAGTTL": "5m"})
    assert whole.engine.upstreams == dotted.engine.upstreams
    assert whole.engine.upstreams[1] == UpstreamSettings(
        "ghcr.io", "https://ghcr.io", namespaces=("ghcr.io",), tagttl_s=300
    )


@pytest.mark.parametrize("password", ["hunter2: [", "*hunter2", "{hunter2", "'hunter2"])
def test_a_value_that_is_not_yaml_is_refused_without_being_repeated(password: str) -> None:
    message = refuse({"REGISTRY_PROXY_PASSWORD": password})
    assert message.startswith("REGISTRY_PROXY_PASSWORD: found a value that is not YAML, expected")
    assert "hunter2" not in message


def test_the_value_of_an_unknown_name_need_not_be_yaml() -> None:
    settings = load_with({"REGISTRY_COMMENT": "{not yaml"})
    assert settings.warnings == ("REGISTRY_COMMENT: names no known setting, ignored",)


def test_a_free_maps_lists_have_indices_too() -> None:
    environ = {"REGISTRY_LOG_FIELDS": "{a: [x, y]}", "REGISTRY_LOG_FIELDS_A_1": "z"}
    assert load_with(environ).log.fields == {"a": '["x", "z"]'}


def test_a_problem_names_the_variable_that_set_it(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_with({"REGISTRY_PROXY_TTL": "soon", "REGISTRY_HTTP": "{adr: ':1'}"}, file)
    lines = str(caught.value).splitlines()
    assert "REGISTRY_HTTP: http.adr: found an unknown key, expected addr, perhaps" in lines
    assert any(line.startswith("REGISTRY_PROXY_TTL: proxy.ttl: found 'soon'") for line in lines)


def test_the_file_may_be_named_by_the_environment(file: Path) -> None:
    settings = load_with({"REGISTRY_CONFIGURATION_PATH": str(file)})
    assert settings.engine.upstreams[0].url == "https://a.example"


def test_the_argument_beats_the_environments_file(file: Path) -> None:
    settings = load_with({"REGISTRY_CONFIGURATION_PATH": "/nonexistent"}, file)
    assert settings.engine.upstreams[0].url == "https://a.example"
