"""Manifests that upstream damages, describes badly or refuses in part: right ones, or none."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.fakes.upstream import Fault
from tests.fakes.upstream_content import IMAGE_INDEX, MANIFEST, Image, digest_of
from tests.system.lab import Lab, message_of, run_lab
from tests.system.raw import Answer

pytestmark = pytest.mark.system

NOTHING = "sha256:" + "0" * 64
WRONG_DIGEST = Fault(headers={"Docker-Content-Digest": NOTHING})
NO_DIGEST = Fault(headers={"Docker-Content-Digest": None})
NO_TYPE = Fault(headers={"Content-Type": None})
NO_LENGTH = Fault(headers={"Content-Length": None})
BIT = Fault(corrupt_at=-1)
LIMITED = Fault(status=429, headers={"Retry-After": "60"})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One mirror for all."""
    with run_lab(tmp_path_factory.mktemp("manifests")) as made:
        yield made


class Case:
    """A repository with one image under the tag 1, at an upstream name of its own."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespace = self.repository = lab.take_name()
        self.image = self.push(b"first")

    def push(self, layer: bytes) -> Image:
        """Move the tag to another image."""
        layers = (self.repository.encode() + layer,)
        return self.lab.upstream.content.add_image(self.repository, "1", layers)

    def fail(self, fault: Fault, method: str = "GET", times: int | None = None) -> None:
        """Damage what is said of manifests from now on."""
        self.lab.upstream.fail(
            fault, kind="manifest", repository=self.repository, method=method, times=times
        )

    def ask(self, reference: str = "1", method: str = "GET") -> Answer:
        """Ask the mirror."""
        path = f"/v2/{self.repository}/manifests/{reference}?ns={self.namespace}"
        return self.lab.ask(path, method=method)

    def methods(self) -> list[str]:
        """How upstream was asked so far."""
        return [seen.method for seen in self.lab.upstream.seen(repository=self.repository)]


@pytest.fixture
def case(lab: Lab) -> Case:
    return Case(lab)


def assert_is(answer: Answer, image: Image) -> None:
    """The whole image, described as it should be."""
    assert (answer.status, answer.body) == (200, image.body)
    assert answer.headers["docker-content-digest"] == image.manifest
    assert answer.headers["content-type"] == MANIFEST
    assert answer.headers["content-length"] == str(len(image.body))
    assert answer.headers["etag"] == f'"{image.manifest}"'


# Bytes that are not what their name says


@pytest.mark.parametrize("fault", [BIT, Fault(body=b"{}"), Fault(truncate_at=9), Fault(drop=True)])
@pytest.mark.parametrize("is_by_tag", [True, False])
def test_a_damaged_manifest_is_fetched_once_more(case: Case, fault: Fault, is_by_tag: bool) -> None:
    case.fail(fault, times=1)
    assert_is(case.ask("1" if is_by_tag else case.image.manifest), case.image)
    assert case.methods().count("GET") == 2


@pytest.mark.parametrize("is_by_tag", [True, False])
def test_a_manifest_that_stays_damaged_is_refused_and_not_kept(case: Case, is_by_tag: bool) -> None:
    reference = "1" if is_by_tag else case.image.manifest
    case.fail(BIT, times=2)
    refused = case.ask(reference)
    assert (refused.status, refused.code) == (502, "UNAVAILABLE")
    assert refused.headers["cache-status"] == "moorage; fwd=uri-miss; detail=mismatch"
    assert f"expected {case.image.manifest}" in message_of(refused)
    assert case.methods().count("GET") == 2
    assert_is(case.ask(reference), case.image)


def test_what_is_here_hides_that_a_tag_moved_to_something_damaged(case: Case) -> None:
    assert_is(case.ask(), case.image)
    case.push(b"second")
    case.fail(BIT)
    stale = case.ask()
    assert_is(stale, case.image)
    assert "expected sha256:" in stale.headers["warning"]
    assert stale.headers["cache-status"] == "moorage; fwd=stale; detail=served-stale"


# A tag that moved, while only HEADs are answered


@pytest.mark.parametrize(
    ("fault", "says"), [(LIMITED, "429"), (Fault(status=403), "403"), (BIT, "expected")]
)
def test_a_tag_that_moved_out_of_reach_stays_stale_for_as_long_as_it_takes(
    case: Case, fault: Fault, says: str
) -> None:
    assert_is(case.ask(), case.image)
    moved = case.push(b"second")
    case.fail(fault)
    for _ in range(3):
        stale = case.ask()
        assert_is(stale, case.image)
        assert says in stale.headers["warning"]
    asked = case.ask(moved.manifest)
    assert asked.status >= 400


def test_a_head_that_saw_a_tag_move_does_not_lose_what_is_here(case: Case) -> None:
    assert_is(case.ask(), case.image)
    moved = case.push(b"second")
    assert case.ask(method="HEAD").headers["docker-content-digest"] == moved.manifest
    case.fail(LIMITED)
    assert_is(case.ask(), case.image)


def test_what_a_client_learned_by_head_and_fetched_by_digest_is_what_the_tag_means_since(
    case: Case,
) -> None:
    assert_is(case.ask(), case.image)
    moved = case.push(b"second")
    case.ask(method="HEAD")
    case.ask(moved.manifest)
    case.fail(LIMITED, "HEAD")
    assert_is(case.ask(), moved)


def test_a_tag_is_current_again_once_upstream_answers(case: Case) -> None:
    case.ask()
    moved = case.push(b"second")
    case.fail(BIT, times=2)
    assert "warning" in case.ask().headers
    current = case.ask()
    assert_is(current, moved)
    assert "warning" not in current.headers


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('a "quote\\', 'a "quote'),
        ("two\r\nX-Evil: 1", "two X-Evil: 1"),
        ("bitte sp\u00e4ter", "bitte sp ter"),
    ],
)
def test_upstreams_words_stay_within_the_warning_and_the_message(
    case: Case, words: str, told: str
) -> None:
    case.ask()
    for method in ("HEAD", "GET"):
        case.fail(Fault(status=403, message=words), method)
    stale = case.ask()
    assert "x-evil" not in stale.headers
    assert re.fullmatch(r'299 - "([ !#-\[\]-~]|\\["\\])*"', stale.headers["warning"])
    assert told in stale.headers["warning"].replace('\\"', '"')
    case.lab.upstream.content.add_image(case.repository, "2")
    denied = case.ask("2")
    assert (denied.status, denied.code) == (403, "DENIED")
    assert "x-evil" not in denied.headers
    assert told in message_of(denied)


# Headers that are missing or lie


@pytest.mark.parametrize(
    "fault", [NO_DIGEST, NO_TYPE, WRONG_DIGEST, Fault(status=405), Fault(status=501)]
)
def test_a_tag_whose_head_says_too_little_is_fetched_by_tag(case: Case, fault: Fault) -> None:
    case.fail(fault, "HEAD")
    assert_is(case.ask(), case.image)


@pytest.mark.parametrize(
    ("fault", "is_by_tag"),
    [
        *itertools.product([NO_LENGTH, NO_TYPE, NO_DIGEST, Fault(status=405)], [True, False]),
        (WRONG_DIGEST, False),
    ],
)
def test_a_head_is_whole_whatever_upstreams_lacks(
    case: Case, fault: Fault, is_by_tag: bool
) -> None:
    case.fail(fault, "HEAD")
    head = case.ask("1" if is_by_tag else case.image.manifest, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(case.image.body))
    assert head.headers["content-type"] == MANIFEST
    assert head.headers["docker-content-digest"] == case.image.manifest


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_tag_without_any_digest_from_upstream_gets_that_of_its_bytes(
    case: Case, method: str
) -> None:
    case.fail(NO_DIGEST, "HEAD")
    case.fail(NO_DIGEST, "GET")
    answer = case.ask(method=method)
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == case.image.manifest


def test_a_tag_whose_get_claims_another_digest_is_refused(case: Case) -> None:
    case.fail(NO_DIGEST, "HEAD")
    case.fail(WRONG_DIGEST, "GET")
    assert (case.ask().status, case.ask().code) == (502, "UNAVAILABLE")


LOGIN_PAGE = Fault(
    body=b"<html>log in first</html>",
    headers={"Content-Type": "text/html", "Docker-Content-Digest": None},
)


@pytest.mark.parametrize("fault", [LOGIN_PAGE, replace(LOGIN_PAGE, body=b"")])
def test_a_page_on_the_way_is_no_manifest(case: Case, fault: Fault) -> None:
    assert_is(case.ask(), case.image)
    case.lab.upstream.content.add_image(case.repository, "cold")
    for method in ("HEAD", "GET"):
        case.fail(fault, method)
    stale = case.ask()
    assert_is(stale, case.image)
    assert "text/html" in stale.headers["warning"]
    told = case.ask("cold")
    assert (told.status, told.code) == (502, "UNAVAILABLE")
    assert case.ask("cold", "HEAD").status == 502


def test_a_digest_is_believed_more_than_the_header(case: Case) -> None:
    case.fail(WRONG_DIGEST)
    assert_is(case.ask(case.image.manifest), case.image)


@pytest.mark.parametrize(
    "stated", [None, "application/json", "text/plain; charset=utf-8", f"{MANIFEST}; charset=utf-8"]
)
def test_a_vague_media_type_is_made_good(case: Case, stated: str | None) -> None:
    case.fail(Fault(headers={"Content-Type": stated}))
    assert_is(case.ask(case.image.manifest), case.image)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/vnd.example.unknown+yaml", b"\xff\x00 not JSON at all\r\n"),
        (IMAGE_INDEX, b'{"manifests":null,\n "unknown":  1 }'),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion": 1}'),
    ],
)
def test_a_manifest_of_any_kind_is_passed_byte_for_byte(
    case: Case, media_type: str, body: bytes
) -> None:
    case.lab.upstream.content.add_manifest(case.repository, body, media_type, "odd")
    for answer in (case.ask("odd"), case.ask(digest_of(body))):
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-type"] == media_type
    head = case.ask("odd", "HEAD")
    assert head.headers["content-length"] == str(len(body))


def test_a_head_of_a_cold_tag_costs_upstream_no_get(case: Case) -> None:
    assert case.ask(method="HEAD").headers["docker-content-digest"] == case.image.manifest
    assert case.methods() == ["HEAD"]
