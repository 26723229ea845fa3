"""The compiled rules decide as a naive reading of the configuration does."""

from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from engine.names import Location, Repository
from server.access_rules import Client, Rules
from server.settings import AccessRule, AccessSettings

UPSTREAMS = ["docker.io", "ghcr.io", "localhost:5000"]
TAGS = ["1", "1.2", "latest"]
NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "10.1.2.3"]
USERS = ["ci-*", "bob", "*"]


def some(elements: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(elements), max_size=2, unique=True).map(tuple)


LOCATIONS = st.builds(
    Location, st.sampled_from(UPSTREAMS), st.sampled_from([Repository("a"), Repository("a/b")])
)
PATTERNS = st.builds(
    lambda repository, tag: repository + tag,
    st.sampled_from(["*", "docker.io/*", "ghcr.io/a", "*/a", "localhost:5000/*", "*:5000/a"]),
    st.sampled_from(["", ":*", ":1", ":1.*", ":?", ":latest"]),
)
CONTENTS = st.lists(PATTERNS, max_size=3).map(tuple)
RULES = st.builds(
    AccessRule,
    networks=some(NETWORKS),
    users=some(USERS),
    certificates=some(["node-?", "*.ci"]),
    allow=CONTENTS,
    deny=CONTENTS,
)
SETTINGS = st.builds(AccessSettings, st.lists(RULES, max_size=4).map(tuple), st.booleans())
CLIENTS = st.builds(
    Client,
    st.sampled_from(["10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1", "unix"]),
    st.sampled_from(["", "ci-1", "bob", "eve"]),
    st.sampled_from(["", "node-1", "a.ci"]),
)


def is_about(rule: AccessRule, client: Client) -> bool:
    def is_in(network: str) -> bool:
        return client.address != "unix" and ip_address(client.address) in ip_network(network)

    return (
        (not rule.networks or any(map(is_in, rule.networks)))
        and (not rule.users or _matches_any(client.user, rule.users))
        and (not rule.certificates or _matches_any(client.certificate, rule.certificates))
    )


def _matches_any(name: str, globs: tuple[str, ...]) -> bool:
    return bool(name) and any(fnmatchcase(name, glob) for glob in globs)


def may_pull(settings: AccessSettings, client: Client, location: Location, tag: str) -> bool:
    """Read the rules as the README describes them."""

    def is_named(patterns: tuple[str, ...]) -> bool:
        return any(_names(pattern, str(location), tag) for pattern in patterns)

    for rule in settings.rules:
        if is_about(rule, client):
            if is_named(rule.deny):
                return False
            if is_named(rule.allow):
                return True
    return settings.is_allowed_by_default


def _names(pattern: str, repository: str, tag: str) -> bool:
    last = pattern.rpartition("/")[2]
    whole = pattern if ":" in last else f"{pattern}:*"
    return fnmatchcase(f"{repository}:{tag}", whole)


@given(SETTINGS, CLIENTS, LOCATIONS, st.sampled_from(TAGS))
def test_a_tag_is_judged_as_the_rules_read(
    settings: AccessSettings, client: Client, location: Location, tag: str
) -> None:
    scope = Rules(settings).find_permissions(client).find_scope(location)
    assert scope.judge_tag(tag).is_allowed is may_pull(settings, client, location, tag)


@given(SETTINGS, CLIENTS, LOCATIONS, st.from_regex(r"[a-z0-9][a-z0-9.]{0,5}", fullmatch=True))
def test_what_has_no_tag_is_open_where_any_tag_is(
    settings: AccessSettings, client: Client, location: Location, any_tag: str
) -> None:
    """`?`, `1.*` and literals: enough tags to tell an open repository from a closed one."""
    scope = Rules(settings).find_permissions(client).find_scope(location)
    witnesses = [*TAGS, "x", "1.", "unheard-of", any_tag]
    is_open = any(may_pull(settings, client, location, tag) for tag in witnesses)
    assert scope.untagged.is_allowed is is_open


@given(SETTINGS, CLIENTS, LOCATIONS)
def test_a_verdict_names_a_rule_that_is_there(
    settings: AccessSettings, client: Client, location: Location
) -> None:
    scope = Rules(settings).find_permissions(client).find_scope(location)
    places = {f"access.rules[{at}]" for at in range(len(settings.rules))} | {"access.default"}
    assert {scope.untagged.place, scope.judge_tag("1").place} <= places
