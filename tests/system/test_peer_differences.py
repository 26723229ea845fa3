"""The mirror answers as distribution's mirror does, but where it means to do better."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.distribution import Registry, proxy_config, run_registry
from tests.fakes.mirror import site_of
from tests.fakes.upstream import Fault, ThreadedUpstream
from tests.system.conftest import require_registry
from tests.system.peer_cases import BLOBS, DOCKER_MANIFEST, MANIFESTS, OTHERS, Case, warm_targets
from tests.system.raw import Answer, ask

pytestmark = pytest.mark.system

_ACCEPT = {"Accept": DOCKER_MANIFEST}


@dataclass(frozen=True, slots=True)
class Pair:
    """Addresses of two mirrors of the same upstream."""

    ours: str
    peers: str

    def ask(self, case: Case) -> tuple[Answer, Answer]:
        """Ask both the same."""
        ours = ask(self.ours, case.target, case.headers, case.method)
        return ours, ask(self.peers, case.target, case.headers, case.method)


@pytest.fixture(scope="module")
def pair(upstream: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both mirrors, without credentials, with the same content warm."""
    directory = tmp_path_factory.mktemp("pair")
    with (
        site_of(directory / "ours", upstream.url).start() as mirror,
        run_registry(directory / "peers", proxy_config(upstream.url)) as peer,
    ):
        both = Pair(mirror.address, peer.address)
        for target in warm_targets():
            ours, peers = both.ask(Case("warm", target, _ACCEPT))
            assert (ours.status, peers.status) == (200, 200), target
        yield both


def facts_of(answer: Answer) -> tuple[object, ...]:
    """Pick what clients go by. Prose, JSON's white space and hints to caches are left out."""
    if answer.status >= 300:
        return answer.status, answer.code
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    names = ("docker-content-digest", "content-range")
    named = tuple(answer.headers.get(name) for name in names)
    if media_type == "application/json":
        return answer.status, media_type, json.loads(answer.body), *named
    return answer.status, media_type, answer.headers.get("content-length"), answer.digest, *named


@pytest.mark.parametrize("case", MANIFESTS + BLOBS + OTHERS, ids=lambda case: case.name)
def test_both_answer_alike_or_ours_better(pair: Pair, case: Case) -> None:
    ours, peers = pair.ask(case)
    assert not ours.is_cut
    if case.better is None:
        assert facts_of(ours) == facts_of(peers)
        return
    assert (ours.status, ours.code) == (case.better.status, case.better.code)
    assert facts_of(ours) != facts_of(peers) or peers.is_cut, "distribution does it too now"


def test_both_say_which_api_they_speak(pair: Pair) -> None:
    ours, peers = pair.ask(Case("ping", "/v2/"))
    name = "docker-distribution-api-version"
    assert ours.headers[name] == peers.headers[name]


@pytest.fixture
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, ThreadedUpstream]]:
    """Both mirrors of an upstream that can be made to fail."""
    require_registry()
    directory = tmp_path_factory.mktemp("scripted")
    with (
        ThreadedUpstream() as thread,
        site_of(directory / "ours", thread.upstream.url).start() as mirror,
        run_registry(directory / "peers", proxy_config(thread.upstream.url)) as peer,
    ):
        yield Pair(mirror.address, peer.address), thread


def test_an_upstream_that_is_down_is_no_404_of_ours(
    scripted: tuple[Pair, ThreadedUpstream],
) -> None:
    both, thread = scripted
    thread.run(thread.upstream.stop())
    ours, peers = both.ask(Case("cold", "/v2/library/busy/manifests/1", _ACCEPT))
    assert (ours.status, ours.code) == (503, "UNAVAILABLE")
    assert int(ours.headers["retry-after"]) > 0
    assert peers.status == 404


def test_a_rate_limit_upstream_is_no_404_of_ours(scripted: tuple[Pair, ThreadedUpstream]) -> None:
    both, thread = scripted
    limit = Fault(status=429, code="TOOMANYREQUESTS", headers={"Retry-After": "600"})
    thread.upstream.fail(limit, kind="manifest", times=None)
    ours, peers = both.ask(Case("cold", "/v2/library/busy/manifests/1", _ACCEPT))
    assert (ours.status, ours.code) == (429, "TOOMANYREQUESTS")
    assert 0 < int(ours.headers["retry-after"]) <= 600
    assert peers.status == 404


def test_a_stale_tag_of_ours_says_that_it_is_stale(
    scripted: tuple[Pair, ThreadedUpstream],
) -> None:
    both, thread = scripted
    thread.upstream.content.add_image("library/busy", "1", (b"layer",))
    case = Case("tag", "/v2/library/busy/manifests/1", {"Accept": "*/*"})
    assert ask(both.ours, case.target).status == 200
    thread.run(thread.upstream.stop())
    stale = ask(both.ours, case.target)
    assert stale.status == 200
    assert stale.headers["warning"].startswith('299 - "')
