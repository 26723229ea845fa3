"""Which registries are mirrored, by which names, and as whom."""

from pathlib import Path

import pytest

from engine.settings import HelperSettings, UpstreamSettings
from server.config import ConfigError, load
from tests.fakes.authority import Authority

HUB_ALIASES = ("index.docker.io", "registry-1.docker.io")


def load_upstreams(tmp_path: Path, text: str) -> tuple[UpstreamSettings, ...]:
    file = tmp_path / "config.yml"
    file.write_text("version: 0.1\n" + text)
    return load(file, {"HOME": "/home/bob"}).engine.upstreams


def refuse(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_upstreams(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path / 'config.yml'}: ")


@pytest.mark.parametrize(
    ("url", "implied"),
    [
        ("https://registry-1.docker.io", ("docker.io", *HUB_ALIASES)),
        ("http://127.0.0.1:5000/path", ("docker.io", *HUB_ALIASES, "127.0.0.1:5000")),
        ("https://registry.example", ("docker.io", *HUB_ALIASES, "registry.example")),
        # Without a port `registry/x` could be a repository's name.
        ("http://registry", ("docker.io", *HUB_ALIASES, "registry:80")),
    ],
)
def test_the_default_upstream_answers_for_docker_hub_and_its_host(
    tmp_path: Path, url: str, implied: tuple[str, ...]
) -> None:
    (default,) = load_upstreams(tmp_path, f"proxy: {{remoteurl: '{url}'}}\n")
    assert default.namespaces == implied
    assert default.namespace == "docker.io"


def test_implied_namespaces_give_way_to_configured_ones(tmp_path: Path) -> None:
    default, hub, quay = load_upstreams(
        tmp_path,
        "proxy: {remoteurl: 'https://registry.example'}\n"
        "upstreams:\n"
        "  docker.io: {remoteurl: 'https://registry-1.docker.io'}\n"
        "  quay.io: {namespaces: [registry-1.docker.io]}\n",
    )
    assert default.namespaces == ("registry.example", "index.docker.io")
    assert hub.namespaces == ("docker.io",)
    assert quay.namespaces == ("quay.io", "registry-1.docker.io")


def test_without_a_remoteurl_docker_io_among_the_upstreams_is_the_default(tmp_path: Path) -> None:
    default, other = load_upstreams(
        tmp_path, "upstreams: {ghcr.io: {}, docker.io: {username: bob, password: hunter2}}\n"
    )
    assert (default.namespace, default.username) == ("docker.io", "bob")
    assert set(default.namespaces) == {"docker.io", *HUB_ALIASES}
    assert other.namespace == "ghcr.io"


def test_docker_io_among_the_upstreams_keeps_its_name_beside_its_namespaces(
    tmp_path: Path,
) -> None:
    (default,) = load_upstreams(tmp_path, "upstreams: {docker.io: {namespaces: [hub.example]}}\n")
    assert default.namespaces == ("docker.io", "hub.example")


def test_half_a_default_upstream_beside_docker_io_is_refused(tmp_path: Path) -> None:
    message = refuse(tmp_path, "proxy: {tagttl: 1m}\nupstreams: {docker.io: {}}\n")
    assert message == (
        "proxy.tagttl: found a setting, "
        "expected none here, since upstreams.docker.io is the default"
    )


def test_an_upstreams_url_follows_from_its_name(tmp_path: Path) -> None:
    upstreams = load_upstreams(tmp_path, "upstreams: {GHCR.io: , 'host.example:5000': }\n")
    assert [each.url for each in upstreams[1:]] == ["https://ghcr.io", "https://host.example:5000"]
    assert [each.namespace for each in upstreams[1:]] == ["ghcr.io", "host.example:5000"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "upstreams: {a.example: {namespaces: [b.example]}, b.example: {}}",
            "upstreams.b.example.namespaces: found b.example, "
            "expected one that upstreams.a.example does not have",
        ),
        (
            "proxy: {remoteurl: 'https://x.example', namespaces: [ghcr.io, y.example]}\n"
            "upstreams: {ghcr.io: {}}",
            "proxy.namespaces: found ghcr.io, expected one that upstreams.ghcr.io does not have",
        ),
        (
            "proxy: {remoteurl: 'https://registry-1.docker.io'}\n"
            "upstreams: {docker.io: {namespaces: [index.docker.io, registry-1.docker.io]}}",
            "proxy.namespaces: found none that is left, expected one that no other upstream has",
        ),
        (
            "upstreams: {ghcr.io: {namespaces: [docker.io]}, docker.io: {}}",
            "upstreams.docker.io.namespaces: found docker.io, "
            "expected one that upstreams.ghcr.io does not have",
        ),
        (
            "upstreams: {library: {}}",
            "upstreams.library: found this name, "
            "expected a registry's host as clients name it, such as ghcr.io or host:5000",
        ),
        (
            "proxy: {remoteurl: 'https://x.example', namespaces: [library]}",
            "proxy.namespaces: found 'library', "
            "expected a registry's host as clients name it, such as ghcr.io or host:5000",
        ),
    ],
)
def test_a_namespace_that_cannot_select_one_upstream_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    assert refuse(tmp_path, text) == message


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"hunter2\n\n", "hunter2\n"),
        (b" hunter2 ", " hunter2 "),
    ],
)
def test_a_password_file_loses_one_newline_only(
    tmp_path: Path, content: bytes, password: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    default, other = load_upstreams(
        tmp_path,
        f"proxy: {{remoteurl: 'https://x.example', username: bob, passwordfile: '{secret}'}}\n"
        f"upstreams: {{ghcr.io: {{username: bob, passwordfile: '{secret}'}}}}\n",
    )
    assert (default.password, other.password) == (password, password)


@pytest.mark.parametrize(("content", "why"), [(b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8")])
def test_a_password_file_without_a_password_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    message = refuse(
        tmp_path, f"proxy: {{remoteurl: 'https://x.example', passwordfile: '{secret}'}}"
    )
    assert message.startswith("proxy.passwordfile: found ")
    assert why in message


def test_a_password_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    message = refuse(tmp_path, f"upstreams: {{ghcr.io: {{passwordfile: '{absent}'}}}}")
    assert message == (
        f"upstreams.ghcr.io.passwordfile: found '{absent}': No such file or directory, "
        "expected a readable file"
    )


def test_two_passwords_are_refused_and_neither_is_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter3")
    message = refuse(
        tmp_path,
        f"proxy: {{remoteurl: 'https://x.example', password: hunter2, passwordfile: '{secret}'}}\n",
    )
    assert message == ("proxy.passwordfile: found password as well, expected only one of the two")


@pytest.mark.parametrize(
    ("lifetime", "lifetime_s"), [("", None), (", lifetime: 0", 0), (", lifetime: 1h", 3600)]
)
def test_a_helpers_lifetime_is_for_ever_unless_given(
    tmp_path: Path, lifetime: str, lifetime_s: float | None
) -> None:
    (default,) = load_upstreams(
        tmp_path, f"proxy: {{remoteurl: 'https://x.example', exec: {{command: c{lifetime}}}}}\n"
    )
    assert default.helper == HelperSettings("c", lifetime_s)
    assert default.has_credentials


def test_a_helper_is_used_instead_of_a_password_and_that_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "version: 0.1\nproxy: {remoteurl: 'https://x.example', username: bob, exec: {command: c}}\n"
    )
    (warning,) = load(file, {}).warnings
    assert warning == (
        f"{file}: proxy.exec: used instead of the username and password that are also set"
    )


def test_a_password_is_not_in_a_settings_repr(tmp_path: Path) -> None:
    upstreams = load_upstreams(
        tmp_path, "proxy: {remoteurl: 'https://x.example', username: bob, password: hunter2}\n"
    )
    assert "hunter2" not in repr(upstreams)


def test_tls_to_upstream_is_configured_by_files(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("mirror")
    text = (
        f"upstreams: {{registry.example: {{ca: {authority.path}, certificate: {pair.certificate}, "
        f"key: {pair.key}}}, lab.example: {{insecure: true}}}}"
    )
    (tmp_path / "config.yml").write_text("version: 0.1\n" + text)
    settings = load(tmp_path / "config.yml", {"HOME": "/home/bob"})
    _, registry, lab = settings.engine.upstreams
    assert (registry.ca, registry.certificate, registry.key, registry.is_insecure) == (
        *map(str, (authority.path, pair.certificate, pair.key)),
        False,
    )
    assert lab.is_insecure
    (warning,) = [each for each in settings.warnings if "NOT verified" in each]
    assert "upstreams.lab.example.insecure" in warning


@pytest.mark.parametrize(
    ("text", "key_path"),
    [
        ("ca: /nowhere/ca.pem", "proxy.ca"),
        ("certificate: /nowhere/c.pem, key: /nowhere/k.pem", "proxy.certificate"),
        ("certificate: /nowhere/c.pem", "proxy.key"),
        ("key: /nowhere/k.pem", "proxy.certificate"),
        ("insecure: perhaps", "proxy.insecure"),
    ],
)
def test_tls_to_upstream_that_cannot_be_is_a_problem(
    tmp_path: Path, text: str, key_path: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_upstreams(tmp_path, f"proxy: {{remoteurl: 'https://x.example', {text}}}")
    assert [problem.key_path for problem in raised.value.problems] == [key_path]
