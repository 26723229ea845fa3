"""The `auth` section: what it needs, what is wrong with it, and which warnings it changes."""

from pathlib import Path

import pytest

from server.config import ConfigError, load
from server.settings import HtpasswdSettings, ServerSettings
from tests.fakes.accounts import write_accounts

SECRETIVE = "proxy: {remoteurl: 'https://x.example', username: bob, password: hunter2}\n"


def load_text(tmp_path: Path, text: str) -> ServerSettings:
    file = tmp_path / "config.yml"
    file.write_text(f"version: 0.1\n{text}")
    return load(file, {})


def refuse_text(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/config.yml: ") for line in str(caught.value).split("\n")]


def htpasswd(path: Path) -> str:
    return f"auth: {{htpasswd: {{realm: basic-realm, path: '{path}'}}}}\n"


@pytest.mark.parametrize("text", ["", "auth: \n", "auth: {}\n", "auth: none\n"])
def test_nobody_is_asked_unless_configured(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, f"http: {{}}\n{text}").auth is None


def test_a_file_of_accounts_is_taken_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    write_accounts(path, ci="a password")
    settings = load_text(tmp_path, "proxy: {remoteurl: 'https://x.example'}\n" + htpasswd(path))
    assert settings.auth == HtpasswdSettings("basic-realm", path)
    assert settings.warnings == ()


def test_a_relative_path_is_from_where_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    auth = load_text(tmp_path, htpasswd(Path("a/htpasswd"))).auth
    assert auth == HtpasswdSettings("basic-realm", tmp_path / "a" / "htpasswd")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "auth: htpasswd",
            [
                "auth.htpasswd.realm: found nothing, expected a name that clients are shown",
                "auth.htpasswd.path: found nothing, expected the path of a file as htpasswd -B "
                "makes it",
            ],
        ),
        (
            "auth: {htpasswd: {path: /absent, realm: }}",
            ["auth.htpasswd.realm: found nothing, expected a name that clients are shown"],
        ),
        (
            'auth: {htpasswd: {realm: r, path: "a\\0b"}}',
            ["auth.htpasswd.path: found 'a\\x00b', expected a file's path"],
        ),
        (
            "auth: {htpasswd: {realm: [r], path: /absent}}",
            ["auth.htpasswd.realm: found a list, expected a single value"],
        ),
        (
            "auth: {htpasswd: {realm: r, path: /absent, pth: /x}}",
            ["auth.htpasswd.pth: found an unknown key, expected path, perhaps"],
        ),
        (
            "auth: {none: , htpasswd: {realm: r, path: /absent}}",
            ["auth.none: found two auth methods, expected one"],
        ),
        (
            "auth: {token: {realm: r}}",
            ["auth.token: found the auth method token, expected htpasswd, or none"],
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert refuse_text(tmp_path, text) == lines


def test_a_malformed_line_is_named_by_file_and_number_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("# users\nci:hunter2\n")
    assert refuse_text(tmp_path, htpasswd(path)) == [
        f"auth.htpasswd.path: found {str(path)!r}, line 2: the hash is not bcrypt's (htpasswd -B "
        "makes those), expected a readable file of USER:HASH lines"
    ]


def test_accounts_that_nobody_has_are_warned_of(tmp_path: Path) -> None:
    empty = tmp_path / "htpasswd"
    empty.write_text("# nobody yet\n")
    for path, kind in ((empty, "a file without accounts"), (tmp_path, "a directory")):
        text = "proxy: {remoteurl: 'https://x.example'}\n" + htpasswd(path)
        (warning,) = load_text(tmp_path, text).warnings
        assert f"auth.htpasswd.path: {kind}: NOBODY can log in" in warning


@pytest.mark.parametrize(
    ("addr", "is_exposed"), [(":5000", True), ("127.0.0.1:5000", False), ("unix:/run/x", False)]
)
def test_passwords_on_an_open_port_are_warned_of_instead_of_an_open_mirror(
    tmp_path: Path, addr: str, is_exposed: bool
) -> None:
    text = f"http: {{addr: '{addr}'}}\n{SECRETIVE}{htpasswd(tmp_path / 'absent')}"
    warnings = load_text(tmp_path, text).warnings
    assert not any("EVERYONE" in warning for warning in warnings)
    assert [
        ": http.addr: passwords cross the network to :5000 as clear" in w for w in warnings
    ] == [True] * is_exposed
