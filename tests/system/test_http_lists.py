"""Lists: tags and their pages, referrers, and the repositories known here."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.fakes.upstream import Fault
from tests.fakes.upstream_content import IMAGE_INDEX, MANIFEST, Image, descriptor, digest_of
from tests.system.lab import Lab, run_lab
from tests.system.raw import Answer

pytestmark = pytest.mark.system

TAGS = ["1", "1.0", "1.0.1", "Latest", "a", "b", "latest"]
NOTHING = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One mirror for all."""
    with run_lab(tmp_path_factory.mktemp("lists")) as made:
        yield made


@pytest.fixture
def repository(lab: Lab) -> str:
    """The name of a repository that nobody else has."""
    return f"lists/{lab.take_name()}"


def add_tags(lab: Lab, repository: str) -> Image:
    """Add an image under each tag; give the first one's."""
    content = lab.upstream.content
    images = [content.add_image(repository, tag, (tag.encode(),)) for tag in reversed(TAGS)]
    return images[-1]


def next_of(answer: Answer) -> str:
    """The target of the Link to the next page; empty where there is none."""
    link = answer.headers.get("link", "")
    found = re.fullmatch(r'<(/[^>]*)>; rel="next"', link)
    assert bool(found) is bool(link), "a link is relative to the host"
    return found[1] if found else ""


# tags/list


def test_all_tags_in_lexical_order(lab: Lab, repository: str) -> None:
    add_tags(lab, repository)
    answer = lab.ask(f"/v2/{repository}/tags/list")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"name": repository, "tags": TAGS}
    assert answer.headers["cache-status"] == "moorage; fwd=bypass; fwd-status=200"
    assert "link" not in answer.headers


@pytest.mark.parametrize("prefix", ["", "docker.io/"])
@pytest.mark.parametrize("query", ["n=3", "n=3&ns=docker.io"])
@pytest.mark.parametrize("upstreams_page", [None, 2])
def test_following_links_visits_each_tag_once_under_the_name_as_asked(
    lab: Lab, repository: str, prefix: str, query: str, upstreams_page: int | None
) -> None:
    add_tags(lab, repository)
    lab.upstream.page_size = upstreams_page
    try:
        pages = []
        target = f"/v2/{prefix}{repository}/tags/list?{query}"
        while target:
            answer = lab.ask(target)
            body = json.loads(answer.body)
            assert body["name"] == f"{prefix}{repository}"
            pages.append(body["tags"])
            target = next_of(answer)
            assert not target or target.startswith(f"/v2/{prefix}{repository}/tags/list?n=3&")
            assert not target or ("ns=docker.io" in target) is ("ns" in query)
    finally:
        lab.upstream.page_size = None
    assert pages == [TAGS[:3], TAGS[3:6], TAGS[6:]]


@pytest.mark.parametrize(
    ("query", "tags"),
    [
        ("n=0", []),
        ("n=100", TAGS),
        ("n=", TAGS),
        ("last=1.0", TAGS[2:]),
        ("last=1.00", TAGS[3:]),
        ("last=zzz", []),
        ("n=1&last=Latest", ["a"]),
        ("n=7", TAGS),
    ],
)
def test_a_page_begins_behind_last_and_has_at_most_n(
    lab: Lab, repository: str, query: str, tags: list[str]
) -> None:
    add_tags(lab, repository)
    answer = lab.ask(f"/v2/{repository}/tags/list?{query}")
    assert (answer.status, json.loads(answer.body)["tags"]) == (200, tags)


@pytest.mark.parametrize("n", ["x", "-1", "1.5", "%20"])
def test_a_page_size_that_is_none_is_refused(lab: Lab, repository: str, n: str) -> None:
    answer = lab.ask(f"/v2/{repository}/tags/list?n={n}")
    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")
    assert lab.upstream.count(repository=repository) == 0


def test_tags_of_an_unknown_repository_are_404(lab: Lab, repository: str) -> None:
    answer = lab.ask(f"/v2/{repository}/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault(status=403), 403, "DENIED"),
        (Fault(status=429, headers={"Retry-After": "9"}), 429, "TOOMANYREQUESTS"),
        (Fault(body=b"<html>"), 502, "UNAVAILABLE"),
    ],
)
def test_a_list_that_cannot_be_had_is_told_or_what_is_known_with_a_warning(
    lab: Lab, fault: Fault, status: int, code: str
) -> None:
    name = lab.take_name()
    known, other = f"known/{name}", f"other/{name}"
    for repository in (known, other):
        add_tags(lab, repository)
    assert lab.ask(f"/v2/{known}/manifests/1.0?ns={name}").status == 200
    for repository in (known, other):
        lab.upstream.fail(fault, kind="tags", repository=repository, times=None)
    stale = lab.ask(f"/v2/{known}/tags/list?ns={name}")
    assert (stale.status, json.loads(stale.body)["tags"]) == (200, ["1.0"])
    assert "only the tags known here" in stale.headers["warning"]
    told = lab.ask(f"/v2/{other}/tags/list?ns={name}")
    assert (told.status, told.code) == (status, code)


# referrers


def add_signature(lab: Lab, repository: str, subject: str, kind: str) -> dict[str, object]:
    body = json.dumps(
        {"schemaVersion": 2, "artifactType": kind, "subject": {"digest": subject}}
    ).encode()
    lab.upstream.content.add_manifest(repository, body, MANIFEST)
    return {**descriptor(MANIFEST, body), "artifactType": kind}


@pytest.fixture
def signed(lab: Lab, repository: str) -> tuple[str, list[dict[str, object]]]:
    """The path of an image's referrers, and what these are."""
    image = add_tags(lab, repository)
    kinds = ("a/signature", "an/sbom", "a/signature+v2")
    added = [add_signature(lab, repository, image.manifest, kind) for kind in kinds]
    return f"/v2/{repository}/referrers/{image.manifest}", added


def found_in(answer: Answer) -> list[str]:
    """The digests of an image index, sorted; checks that it is one."""
    assert (answer.status, answer.headers["content-type"]) == (200, IMAGE_INDEX)
    body = json.loads(answer.body)
    assert (body["schemaVersion"], body["mediaType"]) == (2, IMAGE_INDEX)
    return sorted(entry["digest"] for entry in body["manifests"])


@pytest.mark.parametrize("upstreams_page", [None, 1])
def test_referrers_are_upstreams(
    lab: Lab, signed: tuple[str, list[dict[str, object]]], upstreams_page: int | None
) -> None:
    path, added = signed
    lab.upstream.page_size = upstreams_page
    try:
        answer = lab.ask(path)
    finally:
        lab.upstream.page_size = None
    assert found_in(answer) == sorted(str(entry["digest"]) for entry in added)
    assert "oci-filters-applied" not in answer.headers


def test_referrers_of_one_type_are_filtered_and_it_is_told(
    lab: Lab, signed: tuple[str, list[dict[str, object]]]
) -> None:
    path, added = signed
    answer = lab.ask(f"{path}?artifactType=a/signature%2Bv2")
    assert found_in(answer) == [added[2]["digest"]]
    assert answer.headers["oci-filters-applied"] == "artifactType"


@pytest.mark.parametrize("has_referrers", [True, False])
def test_no_referrers_are_an_empty_list(lab: Lab, repository: str, has_referrers: bool) -> None:
    add_tags(lab, repository)
    lab.upstream.has_referrers = has_referrers
    try:
        for where in (repository, f"{repository}-unknown"):
            assert found_in(lab.ask(f"/v2/{where}/referrers/{NOTHING}")) == []
    finally:
        lab.upstream.has_referrers = True


def test_without_the_api_the_fallback_tag_is_the_list(lab: Lab, repository: str) -> None:
    image = add_tags(lab, repository)
    listed = descriptor(MANIFEST, b"a signature")
    index = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [listed]}
    tag = image.manifest.replace(":", "-")
    lab.upstream.content.add_manifest(repository, json.dumps(index).encode(), IMAGE_INDEX, tag)
    lab.upstream.has_referrers = False
    try:
        answer = lab.ask(f"/v2/{repository}/referrers/{image.manifest}")
    finally:
        lab.upstream.has_referrers = True
    assert found_in(answer) == [digest_of(b"a signature")]


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault(status=403), 403), (Fault(status=429), 429), (Fault(body=b"[]"), 502)],
)
def test_referrers_that_cannot_be_had_are_not_taken_for_none(
    lab: Lab, fault: Fault, status: int
) -> None:
    name = lab.take_name()
    add_tags(lab, name)
    lab.upstream.fail(fault, kind="referrers", repository=name, times=None)
    answer = lab.ask(f"/v2/{name}/referrers/{NOTHING}?ns={name}")
    assert answer.status == status
    assert "www-authenticate" not in answer.headers


# _catalog


def test_the_catalog_is_what_is_known_here_page_by_page(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with run_lab(tmp_path_factory.mktemp("catalog"), ["other.test"]) as lab:
        names = ["acme/a", "acme/b", "acme/c"]
        for name in names:
            lab.upstream.content.add_image(name, "1")
            assert lab.ask(f"/v2/{name}/manifests/1").status == 200
        lab.upstream.content.add_image("elsewhere", "1")
        assert lab.ask("/v2/elsewhere/manifests/1?ns=other.test").status == 200
        asked_count = lab.upstream.count()

        pages = []
        target = "/v2/_catalog?n=3"
        while target:
            answer = lab.ask(target)
            pages.append(json.loads(answer.body)["repositories"])
            target = next_of(answer)
        assert pages == [names, ["other.test/elsewhere"]]
        others = lab.ask("/v2/_catalog?ns=other.test")
        assert json.loads(others.body) == {"repositories": ["elsewhere"]}
        assert lab.upstream.count() == asked_count
