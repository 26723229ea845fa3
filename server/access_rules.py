"""Who may pull what: the `access` rules, compiled. Pure.

Rules are read from the first to the last; the first that is about the client *and* about what is
asked for decides, and within a rule `deny` comes before `allow`. What none is about, the default
decides.

A tag is judged by its name. What bears no tag (content by digest, lists, referrers) is open where
the client may pull any tag of the repository at all: where something allows a tag that was not
denied before. So a limit to some tags keeps nobody from content whose digest he knows, and a
repository of which nothing is allowed gives nothing away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.names import Location
from server.globs import compile_glob
from server.memo import Memo
from server.networks import Networks
from server.settings import AccessRule, AccessSettings

# Longer than any tag, of a character that none has: what only a `*` can match.
_ANY_TEXT = "~" * 129

# Each of these bounds one of two generations of a memo.
_MAX_CLIENTS = 8_192
_MAX_PERMISSIONS = 64  # sets of rules that are about the same clients
_MAX_SCOPES = 4_096


class Client(NamedTuple):
    """Who asks. `user` and `certificate` are empty for who has none."""

    address: str
    user: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, and where in the configuration that stands."""

    is_allowed: bool
    place: str


class TagGlob:
    """A glob over tags."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matches = compile_glob(text)

    def covers(self, other: "TagGlob") -> bool:
        """Whether all that `other` matches is matched here, as far as the texts tell."""
        return self.text == other.text or self.matches(other.text.replace("*", _ANY_TEXT))


_ANY_TAG = TagGlob("*")


class ContentGlob:
    """A glob over `upstream/repository:tag`; without a tag it is about all of them."""

    def __init__(self, text: str) -> None:
        repository, tag = split_content(text)
        self.matches_repository = compile_glob(repository)
        self.tag = TagGlob(tag)


def split_content(text: str) -> tuple[str, str]:
    """Split a glob over content into those over `upstream/repository` and over the tag."""
    repository, colon, tag = text.rpartition(":")
    # As in any reference: a colon before the last slash belongs to a host's port.
    return (repository, tag) if colon and "/" not in tag else (text, "*")


class _Clause(NamedTuple):
    """What a rule says of some tags of one repository."""

    tag: TagGlob
    verdict: Verdict


class Scope:
    """What one client may pull of one repository."""

    __slots__ = ("_clauses", "untagged")

    def __init__(self, clauses: list[_Clause]) -> None:
        """The last clause is the default, about every tag."""
        self._clauses = clauses
        self.untagged = next(
            clause.verdict for at, clause in enumerate(clauses) if self._decides_untagged(at)
        )

    def judge_tag(self, tag: str) -> Verdict:
        """Judge a manifest that is asked for by its tag."""
        return next(clause.verdict for clause in self._clauses if clause.tag.matches(tag))

    def _decides_untagged(self, at: int) -> bool:
        """Whether a clause denies every tag, or allows one that was not denied before."""
        tag, verdict = self._clauses[at]
        if not verdict.is_allowed:
            return tag.covers(_ANY_TAG)
        earlier = self._clauses[:at]
        return not any(one.tag.covers(tag) for one in earlier if not one.verdict.is_allowed)


class _Rule:
    def __init__(self, rule: AccessRule, place: str) -> None:
        self._networks = Networks(rule.networks) if rule.networks else None
        self._users = [compile_glob(text) for text in rule.users]
        self._certificates = [compile_glob(text) for text in rule.certificates]
        self._contents = [(ContentGlob(text), Verdict(False, place)) for text in rule.deny]
        self._contents += [(ContentGlob(text), Verdict(True, place)) for text in rule.allow]

    def is_about(self, client: Client) -> bool:
        """Whether the client is all that the rule asks for."""
        if self._networks is not None and client.address not in self._networks:
            return False
        if self._users and not (client.user and any(one(client.user) for one in self._users)):
            return False
        return not self._certificates or (
            client.certificate != "" and any(one(client.certificate) for one in self._certificates)
        )

    def find_clauses(self, name: str) -> Iterator[_Clause]:
        """Iterate over what it says of a repository."""
        for content, verdict in self._contents:
            if content.matches_repository(name):
                yield _Clause(content.tag, verdict)


class Permissions:
    """What clients may pull that the same rules are about."""

    def __init__(self, rules: Sequence[_Rule], default: _Clause) -> None:
        self._rules = rules
        self._default = default
        self._scopes: Memo[Location, Scope] = Memo(_MAX_SCOPES)

    def find_scope(self, location: Location) -> Scope:
        """Find what may be pulled of the repository at `location`, and remember it."""
        scope = self._scopes.find(location)
        if scope is None:
            scope = self.make_scope(location)
            self._scopes.add(location, scope)
        return scope

    def make_scope(self, location: Location) -> Scope:
        """Work it out, for a list of repositories that nobody pulls now."""
        name = str(location)
        clauses = [clause for rule in self._rules for clause in rule.find_clauses(name)]
        return Scope([*clauses, self._default])


class Rules:
    """All rules."""

    def __init__(self, settings: AccessSettings) -> None:
        self._rules = [_Rule(rule, f"access.rules[{at}]") for at, rule in enumerate(settings.rules)]
        default = Verdict(settings.is_allowed_by_default, "access.default")
        self._default = _Clause(_ANY_TAG, default)
        self._clients: Memo[Client, Permissions] = Memo(_MAX_CLIENTS)
        self._permissions: Memo[tuple[_Rule, ...], Permissions] = Memo(_MAX_PERMISSIONS)

    def find_permissions(self, client: Client) -> Permissions:
        """Find what `client` may pull."""
        permissions = self._clients.find(client)
        if permissions is None:
            permissions = self._choose(client)
            self._clients.add(client, permissions)
        return permissions

    def _choose(self, client: Client) -> Permissions:
        """Choose the rules that are about `client`; a fleet's clients share what they lead to."""
        rules = tuple(rule for rule in self._rules if rule.is_about(client))
        permissions = self._permissions.find(rules)
        if permissions is None:
            permissions = Permissions(rules, self._default)
            self._permissions.add(rules, permissions)
        return permissions
