"""Challenges are read as RFC 9110 writes them, and realms are trusted by their host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from engine.errors import UpstreamProtocolError
from engine.names import Repository
from engine.upstream.challenge import (
    Challenge,
    Grant,
    check_realm,
    grant_of,
    is_loopback,
    is_same_site,
    parse_challenges,
)

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/busybox:pull"'
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x, y=z"', [("basic", {"realm": "x, y=z"})]),
        (r'Basic realm="a \"b\" \\ c"', [("basic", {"realm": r'a "b" \ c'})]),
        ("BEARER Realm = plain , SERVICE=s", [("bearer", {"realm": "plain", "service": "s"})]),
        (
            'Negotiate, Basic realm="r", Bearer realm="t",scope="a b"',
            [
                ("negotiate", {}),
                ("basic", {"realm": "r"}),
                ("bearer", {"realm": "t", "scope": "a b"}),
            ],
        ),
        ('realm="nobody\'s", Basic', [("basic", {})]),
        ("Negotiate a87421000492aa874209af8bc028==, Basic", None),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ("Bearer realm=https://auth.example.com/token", None),
    ],
)
def test_challenges_are_read(
    header: str, expected: list[tuple[str, dict[str, str]]] | None
) -> None:
    found = parse_challenges(header)
    if expected is None:
        assert found[-1].scheme in ("basic", "bearer")
    else:
        assert found == [Challenge(scheme, parameters) for scheme, parameters in expected]


def test_unquoted_urls_are_read_whole() -> None:
    (found,) = parse_challenges("Bearer realm=https://auth.example.com/token?a=b,service=x")
    assert found.parameters["realm"] == "https://auth.example.com/token?a=b"


@given(st.text())
def test_no_header_breaks_the_reader(header: str) -> None:
    assert all(challenge.scheme for challenge in parse_challenges(header))


values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.lists(st.dictionaries(st.sampled_from(["realm", "service", "scope"]), values), min_size=1)
)
def test_what_was_quoted_is_read_back(challenges: list[dict[str, str]]) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        "Bearer " + ",".join(f"{name}={quote(value)}" for name, value in parameters.items())
        for parameters in challenges
    )
    assert parse_challenges(header) == [Challenge("bearer", found) for found in challenges]


def test_a_grant_is_what_the_challenge_names_else_pulling() -> None:
    repository = Repository("library/busybox")
    (hub,) = parse_challenges(HUB)
    expected = Grant(
        "https://auth.docker.io/token", "registry.docker.io", ("repository:library/busybox:pull",)
    )
    assert grant_of(hub, repository) == expected
    bare = Challenge("bearer", {"realm": "https://auth.docker.io/token"})
    assert grant_of(bare, repository).scopes == ("repository:library/busybox:pull",)
    double = Challenge("bearer", {"realm": "r", "scope": "a:b:c  d:e:f"})
    assert grant_of(double, repository).scopes == ("a:b:c", "d:e:f")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry-1.docker.io", "AUTH.docker.io.", True),
        ("ghcr.io", "ghcr.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("registry.corp.internal", "auth.corp.internal", True),
        ("registry-1.docker.io", "docker.io.evil.com", False),
        ("registry-1.docker.io", "evildocker.io", False),
        ("one.github.io", "other.github.io", False),
        ("one.co.uk", "other.co.uk", False),
        ("registry", "auth", False),
        ("registry", "registry", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "11.0.0.1", False),
        ("1.2.3.4", "5.6.3.4", False),
        ("::1", "::2", False),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_a_site_is_a_host_or_its_registrable_domain(one: str, other: str, expected: bool) -> None:
    assert is_same_site(one, other) is expected
    assert is_same_site(other, one) is expected


@pytest.mark.parametrize(
    ("realm", "upstream"),
    [
        ("https://auth.docker.io/token", "https://registry-1.docker.io"),
        ("https://auth.docker.io:8443/token?x=y", "https://registry-1.docker.io"),
        ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000"),
        ("https://auth.corp.test/token", "http://registry.corp.test"),
    ],
)
def test_a_realm_of_the_same_site_may_be_asked(realm: str, upstream: str) -> None:
    assert str(check_realm(realm, URL(upstream))) == realm


@pytest.mark.parametrize(
    "realm",
    [
        "https://a.xn--b.docker.io/token",
        "https://auth.evil.com/token",
        "http://auth.docker.io/token",
        "https://auth.docker.io@evil.com/token",
        "https://user:secret@auth.docker.io/token",
        "ftp://auth.docker.io/token",
        "//auth.docker.io/token",
        "/token",
        "token",
        "",
        "https://[/token",
        "https:///token",
        "file:///etc/passwd",
    ],
)
def test_any_other_realm_is_refused(realm: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        check_realm(realm, URL("https://registry-1.docker.io"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("128.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
