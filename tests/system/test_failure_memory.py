"""What the mirror remembers of a failing upstream: who is not asked meanwhile, and for how long."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.fakes.upstream import Fault
from tests.system.lab import Lab, message_of, run_lab
from tests.system.raw import Answer

pytestmark = pytest.mark.system

NOTHING = "sha256:" + "0" * 64
HOUR_S = 3600
SOON = Fault(status=429, headers={"Retry-After": "600"})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One mirror for all, of many names of one upstream."""
    with run_lab(tmp_path_factory.mktemp("memory"), negativettl="1h") as made:
        yield made


class Case:
    """An upstream name of its own with two repositories, `known` and `other`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespace = lab.take_name()
        self.known, self.other = f"known/{self.namespace}", f"other/{self.namespace}"
        content = lab.upstream.content
        self.image = content.add_image(self.known, "1", (self.known.encode(),))
        self.later = content.add_image(self.other, "1", (self.other.encode(),))

    def fail(self, fault: Fault, kind: str, method: str, times: int | None = None) -> None:
        """Let what is asked of either repository fail."""
        for repository in (self.known, self.other):
            self.lab.upstream.fail(
                fault, kind=kind, method=method, repository=repository, times=times
            )

    def ask(self, path: str, method: str = "GET", agent: str = "curl/7") -> Answer:
        """Ask for `/v2/` and `path`."""
        return self.lab.ask(f"/v2/{path}?ns={self.namespace}", {"User-Agent": agent}, method)

    @property
    def asked_count(self) -> int:
        """How often upstream was asked."""
        return sum(
            self.lab.upstream.count(repository=repository)
            for repository in (self.known, self.other)
        )

    # What asks upstream for one thing of one kind

    @property
    def manifest(self) -> str:
        return f"{self.known}/manifests/{self.image.manifest}"

    @property
    def other_manifest(self) -> str:
        return f"{self.other}/manifests/{self.later.manifest}"

    @property
    def blob(self) -> str:
        return f"{self.known}/blobs/{self.image.layers[0]}"

    @property
    def other_blob(self) -> str:
        return f"{self.other}/blobs/{self.later.layers[0]}"


@pytest.fixture
def case(lab: Lab) -> Case:
    return Case(lab)


# 429: a pause of one kind


def test_a_pause_of_manifests_holds_for_all_repositories_and_asks_nobody(case: Case) -> None:
    case.fail(SOON, "manifest", "GET")
    assert case.ask(case.manifest).status == 429
    asked_count = case.asked_count
    paused = case.ask(case.other_manifest)
    assert (paused.status, paused.code) == (429, "TOOMANYREQUESTS")
    assert 0 < int(paused.headers["retry-after"]) <= 600
    assert "is not asked" in message_of(paused)
    assert case.asked_count == asked_count


def test_a_pause_of_manifests_lets_heads_blobs_and_lists_pass(case: Case) -> None:
    case.fail(SOON, "manifest", "GET")
    assert case.ask(case.manifest).status == 429
    assert case.ask(case.manifest, "HEAD").status == 200
    assert case.ask(f"{case.known}/manifests/1", "HEAD").status == 200
    assert case.ask(case.blob).status == 200
    assert case.ask(f"{case.known}/tags/list").status == 200


def test_a_pause_of_blobs_lets_manifests_pass(case: Case) -> None:
    case.fail(SOON, "blob", "GET")
    assert case.ask(case.blob).status == 429
    assert case.ask(f"{case.known}/manifests/1").status == 200
    assert case.ask(case.other_blob, "HEAD").status == 200
    asked_count = case.asked_count
    assert case.ask(case.other_blob).status == 429
    assert case.asked_count == asked_count


def test_a_pause_of_heads_still_gets_by_digest(case: Case) -> None:
    case.fail(SOON, "manifest", "HEAD")
    assert case.ask(f"{case.known}/manifests/1").status == 429
    assert case.ask(case.manifest).status == 200
    asked_count = case.asked_count
    assert case.ask(f"{case.other}/manifests/1", "HEAD").status == 429
    assert case.asked_count == asked_count


def test_a_pause_does_not_keep_another_upstream_from_being_asked(lab: Lab, case: Case) -> None:
    case.fail(SOON, "manifest", "GET")
    assert case.ask(case.manifest).status == 429
    other = Case(lab)
    assert other.ask(other.manifest).status == 200


@pytest.mark.parametrize("agent", ["containerd/2.1.4", "docker/27.5 containerd-client/1.7.24"])
def test_a_pause_is_503_to_containerd_too(case: Case, agent: str) -> None:
    case.fail(SOON, "manifest", "GET")
    for path in (case.manifest, case.other_manifest):
        told = case.ask(path, agent=agent)
        assert (told.status, told.code) == (503, "UNAVAILABLE")
        assert 0 < int(told.headers["retry-after"]) <= 600
        assert told.headers["cache-status"] == "moorage; fwd=uri-miss; fwd-status=429"


@pytest.mark.parametrize(
    ("stated", "at_most_s", "at_least_s"),
    [
        (None, 60, 1),
        ("30", 30, 1),
        ("0", 1, 1),
        ("86400", HOUR_S, HOUR_S - 60),
        ("soon", 60, 1),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 1, 1),
    ],
)
def test_a_pause_is_as_long_as_upstream_says_but_at_most_an_hour(
    case: Case, stated: str | None, at_most_s: int, at_least_s: int
) -> None:
    case.fail(Fault(status=429, headers={"Retry-After": stated}), "manifest", "GET")
    told = case.ask(case.manifest)
    assert at_least_s <= int(told.headers["retry-after"]) <= at_most_s


def test_a_pause_may_be_told_as_a_date(case: Case) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    case.fail(Fault(status=429, headers={"Retry-After": date}), "manifest", "GET")
    assert 0 < int(case.ask(case.manifest).headers["retry-after"]) <= 300


# The circuit breaker


def test_after_a_failure_the_next_ones_are_fast_and_blobs_still_pass(case: Case) -> None:
    tag = f"{case.known}/manifests/1"
    assert case.ask(tag).status == 200
    for method in ("HEAD", "GET"):
        case.fail(Fault(drop=True), "manifest", method)
    before = case.asked_count
    assert "connection" in case.ask(tag).headers["warning"]
    tried_count = case.asked_count - before
    assert tried_count > 2, "a transient fault is retried until the deadline"
    case.lab.mirror.child.wait_for(rf"upstream is unavailable upstream={case.namespace} ")

    before = case.asked_count
    cold = case.ask(case.other_manifest)
    assert (cold.status, cold.code) == (503, "UNAVAILABLE")
    assert int(cold.headers["retry-after"]) > 0
    stale = case.ask(tag)
    assert (stale.status, stale.digest) == (200, case.image.manifest)
    assert stale.headers["warning"].startswith('299 - "')
    # Nobody is asked; or upstream is probed, once each, if this test was that slow.
    assert case.asked_count <= before + 2 < before + tried_count
    assert case.ask(case.blob).status == 200


# 404 of a digest


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_digest_that_is_unknown_is_asked_for_once_per_repository(
    case: Case, kind: str, method: str
) -> None:
    for _ in range(3):
        answer = case.ask(f"{case.known}/{kind}/{NOTHING}", method)
        assert answer.status == 404
    assert case.asked_count == 1
    assert case.ask(f"{case.other}/{kind}/{NOTHING}", method).status == 404
    assert case.asked_count == 2


def test_a_tag_that_is_unknown_is_asked_for_each_time(case: Case) -> None:
    for _ in range(3):
        assert case.ask(f"{case.known}/manifests/none").status == 404
    assert case.asked_count == 3
    case.lab.upstream.content.add_image(case.known, "none")
    assert case.ask(f"{case.known}/manifests/none").status == 200
