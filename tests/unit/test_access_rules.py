"""Access rules as operators write them: which rule decides, and what a limit to tags means."""

import pytest

from engine.names import Location, Repository
from server.access_rules import Client, Rules, Scope, split_content
from server.settings import AccessRule, AccessSettings

APP = Location("ghcr.io", Repository("org/app"))
CI = Client("10.1.2.3", "ci-7")


def scope_of(
    *rules: AccessRule, client: Client = CI, location: Location = APP, allows: bool = False
) -> Scope:
    settings = AccessSettings(rules, is_allowed_by_default=allows)
    return Rules(settings).find_permissions(client).find_scope(location)


def allow(*globs: str) -> AccessRule:
    return AccessRule(allow=globs)


def deny(*globs: str) -> AccessRule:
    return AccessRule(deny=globs)


@pytest.mark.parametrize("allows", [True, False])
def test_without_a_rule_the_default_decides(allows: bool) -> None:
    scope = scope_of(allows=allows)
    assert scope.untagged.is_allowed is allows
    assert scope.judge_tag("1").is_allowed is allows
    assert scope.untagged.place == "access.default"


def test_the_first_rule_that_is_about_it_decides() -> None:
    ghcr, whole = "ghcr.io/*", "*"
    assert scope_of(deny(ghcr), allow(whole)).untagged.place == "access.rules[0]"
    assert not scope_of(deny(ghcr), allow(whole)).untagged.is_allowed
    assert scope_of(allow(ghcr), deny(whole)).untagged.is_allowed
    assert scope_of(deny("docker.io/*"), allow(whole)).untagged.place == "access.rules[1]"


def test_within_a_rule_denials_come_first() -> None:
    rule = AccessRule(allow=("ghcr.io/org/*",), deny=("ghcr.io/org/app",))
    assert not scope_of(rule, allows=True).untagged.is_allowed


@pytest.mark.parametrize(
    ("rule", "is_about"),
    [
        (AccessRule(networks=("10.0.0.0/8",)), True),
        (AccessRule(networks=("10.2.0.0/16", "10.1.2.3")), True),
        (AccessRule(networks=("192.0.2.0/24", "unix")), False),
        (AccessRule(users=("ci-*",)), True),
        (AccessRule(users=("CI-*",)), False),
        (AccessRule(certificates=("*",)), False),
        (AccessRule(networks=("10.0.0.0/8",), users=("bob",)), False),
    ],
)
def test_all_that_a_rule_asks_for_must_be_so(rule: AccessRule, is_about: bool) -> None:
    whole = AccessRule(rule.networks, rule.users, rule.certificates, allow=("*",))
    assert scope_of(whole).untagged.is_allowed is is_about


def test_nobody_is_no_user_whatever_the_glob() -> None:
    rule = AccessRule(users=("*",), allow=("*",))
    assert not scope_of(rule, client=Client("10.1.2.3")).untagged.is_allowed


def test_a_certificate_is_known_by_its_name() -> None:
    rule = AccessRule(certificates=("runner-*.ci",), allow=("*",))
    named = Client("10.1.2.3", certificate="runner-1.ci")
    assert scope_of(rule, client=named).untagged.is_allowed


def test_the_unix_socket_is_a_network() -> None:
    rule = AccessRule(networks=("unix",), allow=("*",))
    assert scope_of(rule, client=Client("unix")).untagged.is_allowed


@pytest.mark.parametrize(
    ("allowed", "denied", "is_open"),
    [
        ("1.*", "1.*", False),
        ("1.2", "1.*", False),
        ("1.*", "*", False),
        ("1.*", "?*", False),
        ("*", "1.*", True),
        ("1.*", "1.?", True),  # 1.10 is left
        ("1.*", "2.*", True),
        ("[ab]", "[ab]", False),
    ],
)
def test_a_repository_is_closed_where_all_that_is_allowed_was_denied(
    allowed: str, denied: str, is_open: bool
) -> None:
    scope = scope_of(deny(f"ghcr.io/org/app:{denied}"), allow(f"ghcr.io/org/app:{allowed}"))
    assert scope.untagged.is_allowed is is_open


def test_a_rule_about_tags_says_nothing_of_other_tags() -> None:
    scope = scope_of(deny("*:latest"), allow("ghcr.io/org/app"))
    assert not scope.judge_tag("latest").is_allowed
    assert scope.judge_tag("latest-2").is_allowed
    assert scope.untagged.is_allowed


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("docker.io/library/python:3.*", ("docker.io/library/python", "3.*")),
        ("docker.io/library/*", ("docker.io/library/*", "*")),
        ("localhost:5000/a", ("localhost:5000/a", "*")),
        ("localhost:5000/a:1", ("localhost:5000/a", "1")),
        ("*", ("*", "*")),
        ("*:latest", ("*", "latest")),
    ],
)
def test_a_tag_stands_behind_the_last_colon_of_the_last_component(
    text: str, parts: tuple[str, str]
) -> None:
    assert split_content(text) == parts
