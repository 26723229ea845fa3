"""Tags, the catalog and referrers."""

import json
from pathlib import Path

import pytest

from engine.descriptor import OCI_INDEX
from engine.errors import RepositoryUnknown, UpstreamUnavailable
from engine.lookup import ReferrersPage, TagPage
from engine.names import Location, Repository
from tests.fakes.cache import digest_of
from tests.fakes.registry_api import Desk

pytestmark = pytest.mark.anyio

TAGS = ("1.0", "1.1", "1.2", "latest")
DIGEST = digest_of(b"subject")
REFERRERS = f"/v2/acme/app/referrers/{DIGEST}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.cache.tags = TagPage(TAGS)
    desk.cache.repositories = [
        Location(upstream, Repository(name))
        for upstream, name in (
            ("docker.io", "library/busybox"),
            ("docker.io", "acme/app"),
            ("ghcr.io", "org/tool"),
            ("ghcr.io", "a/b"),
        )
    ]
    return desk


async def test_all_tags_come_at_once_unless_a_page_is_asked_for(desk: Desk) -> None:
    answer = await desk.ask("/v2/acme/app/tags/list")
    assert answer.status == 200
    assert json.loads(answer.body) == {"name": "acme/app", "tags": list(TAGS)}
    assert answer.headers == {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "cache-status": "moorage; fwd=bypass; fwd-status=200",
    }


async def test_links_lead_through_all_pages_as_asked(desk: Desk) -> None:
    target, seen = "/v2/ghcr.io/org/app/tags/list?n=3&ns=ghcr.io", []
    while target:
        answer = await desk.ask(target)
        page = json.loads(answer.body)
        assert page["name"] == "ghcr.io/org/app"
        assert answer.headers["oci-namespace"] == "ghcr.io"
        seen.append(page["tags"])
        target = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
        assert not target or target == "/v2/ghcr.io/org/app/tags/list?n=3&last=1.2&ns=ghcr.io"
    assert seen == [["1.0", "1.1", "1.2"], ["latest"]]


async def test_links_keep_the_prefix_of_all_paths(tmp_path: Path) -> None:
    desk = Desk(tmp_path, prefix="/mirror/")
    desk.cache.tags = TagPage(TAGS)
    answer = await desk.ask("/mirror/v2/acme/app/tags/list?n=1")
    assert answer.headers["link"] == '</mirror/v2/acme/app/tags/list?n=1&last=1.0>; rel="next"'


async def test_a_page_is_no_larger_than_configured(tmp_path: Path) -> None:
    desk = Desk(tmp_path, tags_max=2)
    desk.cache.tags = TagPage(TAGS)
    for target in ("/v2/acme/app/tags/list", "/v2/acme/app/tags/list?n=100"):
        answer = await desk.ask(target)
        assert json.loads(answer.body)["tags"] == ["1.0", "1.1"]
        assert answer.headers["link"] == '</v2/acme/app/tags/list?n=2&last=1.1>; rel="next"'


async def test_no_entries_can_be_asked_for(desk: Desk) -> None:
    answer = await desk.ask("/v2/acme/app/tags/list?n=0")
    assert json.loads(answer.body)["tags"] == []
    assert "link" not in answer.headers


def test_a_bad_n_is_refused_before_anybody_is_asked(desk: Desk) -> None:
    for target in ("/v2/acme/app/tags/list?n=many", "/v2/_catalog?n=-1"):
        answer = desk.ask_now(target)
        assert answer.status == 400
        assert b"PAGINATION_NUMBER_INVALID" in answer.body
    assert desk.cache.calls == []


async def test_tags_that_are_only_ours_come_with_a_warning(desk: Desk) -> None:
    desk.cache.tags = TagPage(TAGS, warning="docker.io does not answer: tags known here")
    answer = await desk.ask("/v2/acme/app/tags/list")
    assert answer.status == 200
    assert answer.headers["warning"] == '299 - "docker.io does not answer: tags known here"'
    assert answer.headers["cache-status"] == "moorage; fwd=stale; detail=served-stale"


async def test_tags_of_an_unknown_repository_are_404(desk: Desk) -> None:
    desk.cache.tags = RepositoryUnknown("docker.io/acme/app is unknown")
    answer = await desk.ask("/v2/acme/app/tags/list")
    assert answer.status == 404
    assert b"NAME_UNKNOWN" in answer.body


@pytest.mark.parametrize(
    "target", ["/v2/acme/app/tags/list", "/v2/_catalog", REFERRERS, "/v2/", "/v2/nothing/here"]
)
async def test_head_has_the_head_of_get(desk: Desk, target: str) -> None:
    got, head = [
        await desk.ask(target, method, **{"x-request-id": "same"}) for method in ("GET", "HEAD")
    ]
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")
    assert got.headers["content-length"] == str(len(got.body))


# The catalog


async def test_the_catalog_names_repositories_as_this_client_asks_for_them(desk: Desk) -> None:
    everything = ["acme/app", "ghcr.io/a/b", "ghcr.io/org/tool", "library/busybox"]
    answer = await desk.ask("/v2/_catalog")
    assert json.loads(answer.body) == {"repositories": everything}
    assert answer.headers["cache-status"] == "moorage; hit"
    by_host = await desk.ask("/v2/_catalog", host="ghcr.io")
    assert json.loads(by_host.body)["repositories"] == [
        "a/b", "docker.io/acme/app", "docker.io/library/busybox", "org/tool",
    ]  # fmt: skip
    by_ns = await desk.ask("/v2/_catalog?ns=ghcr.io")
    assert json.loads(by_ns.body)["repositories"] == ["a/b", "org/tool"]
    assert by_ns.headers["oci-namespace"] == "ghcr.io"


async def test_the_catalog_has_pages(desk: Desk) -> None:
    answer = await desk.ask("/v2/_catalog?n=2")
    assert json.loads(answer.body)["repositories"] == ["acme/app", "ghcr.io/a/b"]
    assert answer.headers["link"] == '</v2/_catalog?n=2&last=ghcr.io%2Fa%2Fb>; rel="next"'
    rest = await desk.ask("/v2/_catalog?n=2&last=ghcr.io%2Fa%2Fb")
    assert json.loads(rest.body)["repositories"] == ["ghcr.io/org/tool", "library/busybox"]
    assert "link" not in rest.headers


async def test_the_catalog_of_nothing_is_empty(tmp_path: Path) -> None:
    answer = await Desk(tmp_path).ask("/v2/_catalog")
    assert json.loads(answer.body) == {"repositories": []}


# Referrers


async def test_referrers_are_an_image_index(desk: Desk) -> None:
    desk.cache.referrers = ReferrersPage(b'{"manifests":[1]}', is_filtered=False)
    answer = await desk.ask(REFERRERS)
    assert (answer.status, answer.body) == (200, b'{"manifests":[1]}')
    assert answer.headers["content-type"] == OCI_INDEX
    assert "oci-filters-applied" not in answer.headers
    assert desk.cache.calls == ["get_referrers artifact_type=None"]


async def test_a_filter_that_was_applied_is_told(desk: Desk) -> None:
    desk.cache.referrers = ReferrersPage(b'{"manifests":[]}', is_filtered=True)
    answer = await desk.ask(f"{REFERRERS}?artifactType=application/x")
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert desk.cache.calls == ["get_referrers artifact_type=application/x"]


async def test_referrers_of_an_unknown_repository_are_none(desk: Desk) -> None:
    desk.cache.referrers = RepositoryUnknown("docker.io/acme/app is unknown")
    answer = await desk.ask(REFERRERS)
    assert answer.status == 200
    assert answer.headers["content-type"] == OCI_INDEX
    assert json.loads(answer.body) == {
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
    }  # fmt: skip


async def test_referrers_that_cannot_be_asked_for_are_not_none(desk: Desk) -> None:
    desk.cache.referrers = UpstreamUnavailable("upstream docker.io: timeout")
    assert (await desk.ask(REFERRERS)).status == 503


def test_referrers_of_no_digest_are_refused(desk: Desk) -> None:
    answer = desk.ask_now("/v2/acme/app/referrers/latest")
    assert answer.status == 400
    assert b"DIGEST_INVALID" in answer.body
