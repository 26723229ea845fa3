"""The `access` section and whom proxies speak for: what it means, and what could never work."""

from pathlib import Path

import pytest
import yaml

from server.config import ConfigError, load, to_yaml
from server.config_render import render
from server.settings import AccessRule, AccessSettings, ServerSettings
from tests.fakes.accounts import write_accounts
from tests.fakes.readme import blocks

UPSTREAMS = "upstreams: {ghcr.io: {}, 'localhost:5000': {}}\n"
LOGIN = "auth: {htpasswd: {realm: r, path: PATH}}\n"
SECRETIVE = "proxy: {remoteurl: 'https://x.example', username: bob, password: hunter2}\n"


def load_text(tmp_path: Path, text: str) -> ServerSettings:
    accounts = tmp_path / "htpasswd"
    write_accounts(accounts, ci="right")
    file = tmp_path / "config.yml"
    file.write_text(f"version: 0.1\n{UPSTREAMS}{text}".replace("PATH", str(accounts)))
    return load(file, {})


def refuse_text(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/config.yml: ") for line in str(caught.value).split("\n")]


@pytest.mark.parametrize("text", ["", "access: \n", "access: {}\n", "access: {rules: []}\n"])
def test_without_rules_and_a_default_there_are_none(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, text).access is None


@pytest.mark.parametrize(
    ("text", "allows"),
    [("{default: deny}", False), ("{default: allow}", True), ("{rules: [{deny: '*'}]}", False)],
)
def test_what_no_rule_is_about_is_denied_unless_allowed(
    tmp_path: Path, text: str, allows: bool
) -> None:
    access = load_text(tmp_path, f"access: {text}\n").access
    assert access is not None
    assert access.is_allowed_by_default is allows


def test_rules_are_read_in_order(tmp_path: Path) -> None:
    text = """access:
  rules:
    - {networks: [10.0.0.0/8, '2001:DB8::/32'], users: ci-*, allow: 'ghcr.io/org/*'}
    - {deny: ['localhost:5000/a:1.*', '*:latest', '*']}
"""
    first = AccessRule(("10.0.0.0/8", "2001:db8::/32"), ("ci-*",), allow=("ghcr.io/org/*",))
    second = AccessRule(deny=("localhost:5000/a:1.*", "*:latest", "*"))
    assert load_text(tmp_path, LOGIN + text).access == AccessSettings((first, second))


def test_what_is_shown_is_a_configuration_again(tmp_path: Path) -> None:
    rules = "access: {default: allow, rules: [{users: [a], deny: ['*:1']}, {allow: ['*']}]}\n"
    http = "http: {trustedproxies: [10.0.0.1/32, unix], proxyprotocol: true}\n"
    settings = load_text(tmp_path, LOGIN + rules + http)
    shown = tmp_path / "shown.yml"
    shown.write_text(to_yaml(render(settings)))
    again = load(shown, {})
    assert again.access == settings.access
    assert again.http == settings.http
    assert again.http.trustedproxies == ("10.0.0.1", "unix")
    assert again.http.has_proxy_header


def test_rules_can_be_set_by_variables() -> None:
    variables = {
        "REGISTRY_ACCESS_DEFAULT": "allow",
        "REGISTRY_ACCESS_RULES_0_DENY_0": "docker.io/acme/*",
        "REGISTRY_HTTP_TRUSTEDPROXIES": "[10.0.0.0/8]",
    }
    settings = load(None, variables)
    assert settings.access == AccessSettings((AccessRule(deny=("docker.io/acme/*",)),), True)
    assert settings.http.trustedproxies == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        (
            "{users: [ci], allow: '*'}",
            "users: found users who are not asked to log in, expected auth.htpasswd as well",
        ),
        (
            "{certificates: [ci], allow: '*'}",
            "certificates: found clients who are not asked for a certificate, expected "
            "http.tls.clientcas as well",
        ),
        (
            "{networks: [10.0.0.1/8], allow: '*'}",
            "networks: found '10.0.0.1/8', expected a network such as 10.0.0.0/8, an address, "
            "or unix",
        ),
        (
            "{networks: [], allow: '*'}",
            "networks: found an empty list, expected one value or more, or no such key",
        ),
        (
            "{networks: [unix]}",
            "allow: found nothing, expected globs of what is allowed here, or denied by `deny`",
        ),
        (
            "{deny: ['gchr.io/org/*']}",
            "deny: found 'gchr.io/org/*', expected a glob that begins with one of docker.io, "
            "ghcr.io, localhost:5000",
        ),
        (
            "{deny: ['index.docker.io/library/*']}",
            "deny: found 'index.docker.io/library/*', expected a glob that begins with one of "
            "docker.io, ghcr.io, localhost:5000",
        ),
        (
            "{deny: ['docker.io/python:3.*']}",
            "deny: found 'docker.io/python:3.*', expected docker.io/library/python, which is "
            "where it lies there",
        ),
        (
            "{allow: [python]}",
            "allow: found 'python', expected a glob such as ghcr.io/org/*, or "
            "docker.io/library/python:3.*",
        ),
        ("{allow: '*', denny: '*'}", "denny: found an unknown key, expected deny, perhaps"),
    ],
)
def test_what_could_never_work_is_a_problem(tmp_path: Path, rule: str, line: str) -> None:
    lines = refuse_text(tmp_path, f"access: {{rules: [{{allow: '*'}}, {rule}]}}\n")
    assert f"access.rules[1].{line}" in lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("access: {default: perhaps}", "access.default: found 'perhaps', expected one of"),
        ("access: deny", "access: found a single value, expected a mapping"),
        ("access: {rules: {allow: '*'}}", "access.rules: found a mapping, expected a list"),
        ("http: {trustedproxies: [proxy]}", "http.trustedproxies: found 'proxy', expected a net"),
        ("http: {proxyprotocol: true}", "http.proxyprotocol: found no proxy to trust, expected"),
    ],
)
def test_other_mistakes_are_named(tmp_path: Path, text: str, line: str) -> None:
    assert any(found.startswith(line) for found in refuse_text(tmp_path, f"{text}\n"))


def test_credentials_behind_rules_are_not_open_to_everyone(tmp_path: Path) -> None:
    http = "http: {addr: ':5000'}\n"
    assert "EVERYONE" in str(load_text(tmp_path, SECRETIVE + http).warnings)
    rules = "access: {rules: [{networks: [10.0.0.0/8], allow: '*'}]}\n"
    assert load_text(tmp_path, SECRETIVE + http + rules).warnings == ()


def test_the_readmes_example_is_as_it_should_be(tmp_path: Path) -> None:
    (block,) = [one for one in blocks("yaml") if "\naccess:" in one]
    file = tmp_path / "config.yml"
    tree = yaml.safe_load(block)
    write_accounts(tmp_path / "htpasswd", ops="x")
    tree["auth"]["htpasswd"]["path"] = str(tmp_path / "htpasswd")
    file.write_text(yaml.safe_dump(tree))
    access = load(file, {}).access
    assert access is not None
    assert len(access.rules) == len(tree["access"]["rules"])
