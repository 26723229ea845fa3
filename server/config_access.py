"""The `access` section: who may pull what.

Invariant: a rule that could never apply, or whose pattern could never match, is a problem: a
denial that was mistyped would let everybody in without a word. An empty list is one, too, as it
says "nobody" to one reader and "everybody" to another.
"""

import re
from collections.abc import Sequence
from functools import partial

from engine.settings import UpstreamSettings
from server.access_rules import split_content
from server.config_tree import InvalidValue, Reader
from server.config_values import one_of, parse_network
from server.settings import AccessRule, AccessSettings, HtpasswdSettings, HTTPSettings

_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_parse_default = one_of("allow", "deny")


def build_access(
    access: Reader,
    upstreams: Sequence[UpstreamSettings],
    http: HTTPSettings,
    auth: HtpasswdSettings | None,
) -> AccessSettings | None:
    """Build the rules; None where none are configured."""
    rules = access.elements("rules")
    if not rules and "default" not in access:
        return None
    for rule in rules:
        _check_clients(rule, http, auth)
    return AccessSettings(
        rules=tuple(_build_rule(rule, upstreams) for rule in rules),
        is_allowed_by_default=access.value("default", _parse_default, "deny") == "allow",
    )


def _build_rule(rule: Reader, upstreams: Sequence[UpstreamSettings]) -> AccessRule:
    parse_content = partial(_parse_content, {one.namespace: one for one in upstreams})
    for key in rule.keys:
        if not rule.texts(key):
            rule.add_problem(key, "an empty list", "one value or more, or no such key")
    if "allow" not in rule and "deny" not in rule:
        rule.add_problem("allow", "nothing", "globs of what is allowed here, or denied by `deny`")
    return AccessRule(
        networks=tuple(rule.values("networks", parse_network)),
        users=tuple(rule.texts("users")),
        certificates=tuple(rule.texts("certificates")),
        allow=tuple(rule.values("allow", parse_content)),
        deny=tuple(rule.values("deny", parse_content)),
    )


def _check_clients(rule: Reader, http: HTTPSettings, auth: HtpasswdSettings | None) -> None:
    """Report what no client can be."""
    if "users" in rule and auth is None:
        rule.add_problem("users", "users who are not asked to log in", "auth.htpasswd as well")
    if "certificates" in rule and (http.tls is None or not http.tls.clientcas):
        found = "clients who are not asked for a certificate"
        rule.add_problem("certificates", found, "http.tls.clientcas as well")


def _parse_content(upstreams: dict[str, UpstreamSettings], text: str) -> str:
    """Check a glob over `upstream/repository:tag`, the tag being optional."""
    repository, tag = split_content(text)
    if re.search(r"\s", text) or not tag or not ("/" in repository or "*" in repository):
        raise InvalidValue("a glob such as ghcr.io/org/*, or docker.io/library/python:3.*")
    namespace, slash, name = repository.partition("/")
    if slash and not _GLOB_CHARACTERS.search(namespace):
        _check_place(upstreams, namespace, name)
    return text


def _check_place(upstreams: dict[str, UpstreamSettings], namespace: str, name: str) -> None:
    upstream = upstreams.get(namespace)
    if upstream is None:
        raise InvalidValue(f"a glob that begins with one of {', '.join(upstreams)}")
    if upstream.is_docker_hub and "/" not in name and not _GLOB_CHARACTERS.search(name):
        raise InvalidValue(f"{namespace}/library/{name}, which is where it lies there")
