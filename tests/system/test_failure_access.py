"""Content that upstream shows to some only: who may not have it is told so, and gets none of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.mirror import Site
from tests.fakes.upstream import Fault, Gate, ThreadedUpstream
from tests.fakes.upstream_content import Image, make_bytes
from tests.system.lab import Lab, message_of, site_of_all
from tests.system.raw import Answer

pytestmark = pytest.mark.system

USER, PASSWORD = "ci", "for upstream alone"
TRUSTED, STRANGER, LIMITED = "trusted.test", "stranger.test", "limited.test"
# With credentials, like TRUSTED, or with wrong ones; each for one test.
TOKENLESS, FORGED, MISTAKEN = "tokenless.test", "forged.test", "mistaken.test"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A mirror that knows one upstream with credentials and, by other names, without."""
    with ThreadedUpstream() as thread:
        site = site_of(tmp_path_factory.mktemp("access"), thread.upstream.url)
        thread.upstream.auth.require_token(**{USER: PASSWORD})
        thread.upstream.auth.grants[""] = set()
        with site.start() as mirror:
            yield Lab(mirror, thread, iter(f"name/{number}" for number in range(100)))


def site_of(directory: Path, url: str) -> Site:
    site = site_of_all(directory, url, {})
    upstreams = {name: {"remoteurl": url} for name in (STRANGER, LIMITED)}
    for name in (TRUSTED, TOKENLESS, FORGED):
        upstreams[name] = {"remoteurl": url, "username": USER, "password": PASSWORD}
    upstreams[MISTAKEN] = {"remoteurl": url, "username": USER, "password": f"not {PASSWORD}"}
    return Site(site.directory, site.config | {"upstreams": upstreams})


@dataclass(frozen=True, slots=True)
class Case:
    """An image in a repository of its own."""

    lab: Lab
    repository: str
    image: Image
    layer: bytes

    @property
    def paths(self) -> list[str]:
        """Everything that there is of it."""
        digests = [self.image.layers[0], self.image.config]
        manifests = [f"/v2/{self.repository}/manifests/{r}" for r in ("1", self.image.manifest)]
        return manifests + [f"/v2/{self.repository}/blobs/{digest}" for digest in digests]

    @property
    def blob(self) -> str:
        """Its layer."""
        return f"/v2/{self.repository}/blobs/{self.image.layers[0]}"

    def know(self) -> None:
        """Let the mirror get a token, so that its next request is not the one that is refused."""
        assert self.ask(self.paths[0], TRUSTED).status == 200

    def ask(self, path: str, namespace: str, method: str = "GET") -> Answer:
        """Ask for a path at an upstream."""
        return self.lab.ask(f"{path}?ns={namespace}", method=method)


@pytest.fixture
def case(lab: Lab) -> Case:
    return make_case(lab)


def make_case(lab: Lab, *, is_public: bool = False) -> Case:
    repository = lab.take_name()
    layer = make_bytes(200_000, seed=int.from_bytes(repository.encode(), "big"))
    config = repository.encode()
    image = lab.upstream.content.add_image(repository, "1", (layer,), config)
    if is_public:
        public = lab.upstream.auth.grants[""]
        assert public is not None
        public.add(repository)
    return Case(lab, repository, image, layer)


def assert_is_denied(answer: Answer) -> None:
    """403 without a challenge, and why."""
    assert answer.status == 403
    assert "www-authenticate" not in answer.headers
    assert "docker-content-digest" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_too_few_rights_are_denied_after_the_token_dance(case: Case, method: str) -> None:
    tokens_count = case.lab.upstream.count(kind="token")
    for path in case.paths:
        answer = case.ask(path, STRANGER, method)
        assert_is_denied(answer)
        if method == "GET":
            assert answer.code == "DENIED"
            assert "401" in message_of(answer)
    assert case.lab.upstream.count(kind="token") > tokens_count


def test_a_wrong_password_is_denied_and_says_so(case: Case) -> None:
    for path in case.paths:
        answer = case.ask(path, MISTAKEN)
        assert_is_denied(answer)
        assert answer.code == "DENIED"
        assert "password" in message_of(answer)


@pytest.mark.parametrize(
    ("namespace", "fault", "status", "code"),
    [
        (TOKENLESS, Fault(status=429, headers={"Retry-After": "9"}), 429, "TOOMANYREQUESTS"),
        (FORGED, Fault(body=b"<html>log in</html>"), 502, "UNAVAILABLE"),
    ],
)
def test_a_token_service_that_fails_is_no_404_and_hidden_by_what_is_here(
    case: Case, namespace: str, fault: Fault, status: int, code: str
) -> None:
    assert case.ask(case.paths[0], namespace).status == 200
    case.lab.upstream.auth.revoke_tokens()
    rule = case.lab.upstream.fail(fault, kind="token", times=None)
    try:
        stale = case.ask(case.paths[0], namespace)
        assert (stale.status, stale.digest) == (200, case.image.manifest)
        assert stale.headers["warning"].startswith('299 - "')
        for path in case.paths[2:]:
            told = case.ask(path, namespace)
            assert (told.status, told.code) == (status, code)
            assert "www-authenticate" not in told.headers
    finally:
        case.lab.upstream.rules.remove(rule)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_was_fetched_with_credentials_is_no_strangers(case: Case, method: str) -> None:
    for path in case.paths:
        assert case.ask(path, TRUSTED).status == 200
    for path in case.paths:
        assert_is_denied(case.ask(path, STRANGER, method))


def test_a_stranger_gets_nothing_of_a_fill_under_way(case: Case) -> None:
    case.know()
    gate = Gate()
    stalled = Fault(stall_at=150_000, gate=gate)
    case.lab.upstream.fail(stalled, kind="blob", method="GET", repository=case.repository)
    try:
        with case.lab.open(f"{case.blob}?ns={TRUSTED}") as response:
            assert response.status == 200
            case.lab.wait_at(gate)
            assert_is_denied(case.ask(case.blob, STRANGER))
            gate.open()
            assert response.read() == case.layer
    finally:
        gate.open()


def test_a_stranger_is_never_told_that_what_cannot_be_checked_is_unknown(case: Case) -> None:
    assert case.ask(case.blob, TRUSTED).status == 200
    limit = Fault(status=429, headers={"Retry-After": "1"})
    case.lab.upstream.fail(limit, method="HEAD", repository=case.repository, times=None)
    answer = case.ask(case.blob, LIMITED)
    assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")


def test_what_is_public_is_fetched_once_for_both(lab: Lab) -> None:
    case = make_case(lab, is_public=True)
    for path in case.paths:
        assert case.ask(path, STRANGER).status == 200
    assert case.ask(f"/v2/{case.repository}/manifests/1", TRUSTED).status == 200
    assert case.ask(case.blob, TRUSTED).body == case.layer
    assert lab.upstream.count(kind="blob", method="GET", reference=case.image.layers[0]) == 1


def test_a_token_that_is_revoked_under_way_is_replaced(case: Case) -> None:
    case.know()
    gate = Gate()
    broken = Fault(stall_at=100_000, gate=gate, truncate_at=120_000)
    case.lab.upstream.fail(broken, kind="blob", repository=case.repository)
    try:
        with case.lab.open(f"{case.blob}?ns={TRUSTED}") as response:
            case.lab.wait_at(gate)
            case.lab.upstream.auth.revoke_tokens()
            gate.open()
            assert response.read() == case.layer
    finally:
        gate.open()


def test_neither_a_password_nor_a_token_is_logged(lab: Lab) -> None:
    lines = lab.mirror.child.lines()
    assert not [line for line in lines if PASSWORD in line or "token-" in line]
    assert lab.find_leaks() == []
