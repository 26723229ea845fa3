"""Which upstream and what a request target asks for, and what is refused at sight."""

import pytest

from engine.errors import InvalidDigest, InvalidName, InvalidReference, InvalidRepository
from engine.names import Digest, Location, Repository, Tag
from server import routes
from server.paging import PageQuery
from server.refusals import NamespaceUnknown, PageSizeInvalid, PathUnknown, Refusal
from server.routes import (
    Asked,
    BaseRoute,
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    ReferrersRoute,
    RootRoute,
    Router,
    TagsRoute,
    namespace_of,
)
from tests.fakes.upstreams import GHCR, HUB, LOCAL

DIGEST = Digest("sha256:" + "0123456789abcdef" * 4)
SHA512 = Digest("sha512:" + "0123456789abcdef" * 8)


def match(target: str, host: bytes | None = None, prefix: str = "/") -> routes.Route:
    return Router((HUB, GHCR, LOCAL), prefix).match(target.encode("latin-1"), host)


def located(target: str, host: bytes | None = None) -> str:
    route = match(target, host)
    assert isinstance(route, ManifestRoute)
    return str(route.asked.location)


def asked(upstream: str, repository: str, name: str, namespace: str = "") -> Asked:
    return Asked(Location(upstream, Repository(repository)), name, namespace)


APP = asked("docker.io", "acme/app", "acme/app")


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/", RootRoute()),
        ("/v2/", BaseRoute("")),
        ("/v2", BaseRoute("")),
        ("/v2/?ns=ghcr.io", BaseRoute("ghcr.io")),
        ("/v2/_catalog", CatalogRoute("/v2/_catalog", "docker.io", PageQuery())),
        (
            "/v2/_catalog?n=5&last=a%2Fb",
            CatalogRoute("/v2/_catalog", "docker.io", PageQuery(5, "a/b")),
        ),
        (
            "/v2/acme/app/tags/list?n=2&last=v1",
            TagsRoute("/v2/acme/app/tags/list", APP, PageQuery(2, "v1")),
        ),
        ("/v2/acme/app/manifests/1.0", ManifestRoute(APP, Tag("1.0"))),
        (f"/v2/acme/app/manifests/{DIGEST}", ManifestRoute(APP, DIGEST)),
        (f"/v2/acme/app/blobs/{DIGEST}", BlobRoute(APP, DIGEST)),
        (f"/v2/acme/app/blobs/{SHA512}", BlobRoute(APP, SHA512)),
        (f"/v2/acme/app/referrers/{DIGEST}", ReferrersRoute(APP, DIGEST, None)),
        (
            f"/v2/acme/app/referrers/{DIGEST}?artifactType=application/x%2Bjson",
            ReferrersRoute(APP, DIGEST, "application/x+json"),
        ),
    ],
)
def test_each_endpoint_is_found(target: str, route: routes.Route) -> None:
    assert match(target) == route


@pytest.mark.parametrize(
    ("target", "host", "location"),
    [
        ("/v2/acme/app/manifests/1", None, "docker.io/acme/app"),
        ("/v2/acme/app/manifests/1?ns=ghcr.io", None, "ghcr.io/acme/app"),
        ("/v2/acme/app/manifests/1?ns=GHCR.io", None, "ghcr.io/acme/app"),
        ("/v2/acme/app/manifests/1?ns=localhost%3A5001", None, "localhost:5001/acme/app"),
        ("/v2/acme/app/manifests/1?ns=", None, "docker.io/acme/app"),
        ("/v2/acme/app/manifests/1?ns=ghcr.io&ns=docker.io", None, "ghcr.io/acme/app"),
        ("/v2/ghcr.io/acme/app/manifests/1", None, "ghcr.io/acme/app"),
        ("/v2/localhost:5001/app/manifests/1", None, "localhost:5001/app"),
        ("/v2/index.docker.io/acme/app/manifests/1", None, "docker.io/acme/app"),
        # ns beats the prefix; the same said twice is one
        ("/v2/ghcr.io/acme/app/manifests/1?ns=docker.io", None, "docker.io/ghcr.io/acme/app"),
        ("/v2/ghcr.io/acme/app/manifests/1?ns=ghcr.io", None, "ghcr.io/acme/app"),
        # a namespace alone is a repository's name
        ("/v2/ghcr.io/manifests/1", None, "docker.io/library/ghcr.io"),
        # Host comes last
        ("/v2/acme/app/manifests/1", b"ghcr.io", "ghcr.io/acme/app"),
        ("/v2/acme/app/manifests/1", b"GHCR.IO:8080", "ghcr.io/acme/app"),
        ("/v2/acme/app/manifests/1", b"localhost:5001", "localhost:5001/acme/app"),
        ("/v2/acme/app/manifests/1", b"localhost:5002", "docker.io/acme/app"),
        ("/v2/acme/app/manifests/1", b"mirror.example:5000", "docker.io/acme/app"),
        ("/v2/acme/app/manifests/1", b"[::1]:5000", "docker.io/acme/app"),
        ("/v2/acme/app/manifests/1", b"\xff\xfe", "docker.io/acme/app"),
        ("/v2/docker.io/acme/app/manifests/1", b"ghcr.io", "docker.io/acme/app"),
        ("/v2/acme/app/manifests/1?ns=docker.io", b"ghcr.io", "docker.io/acme/app"),
    ],
)
def test_the_upstream_is_chosen_by_ns_then_prefix_then_host(
    target: str, host: bytes | None, location: str
) -> None:
    assert located(target, host) == location


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/v2/busybox/manifests/1", "docker.io/library/busybox"),
        ("/v2/docker.io/busybox/manifests/1", "docker.io/library/busybox"),
        ("/v2/library/busybox/manifests/1", "docker.io/library/busybox"),
        ("/v2/busybox/manifests/1?ns=ghcr.io", "ghcr.io/busybox"),
        ("/v2/ghcr.io/busybox/manifests/1", "ghcr.io/busybox"),
    ],
)
def test_library_is_added_on_docker_hub_alone(target: str, location: str) -> None:
    assert located(target) == location


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/v2/a/blobs/manifests/1", "docker.io/a/blobs"),
        ("/v2/manifests/manifests/manifests/1", "docker.io/manifests/manifests"),
        ("/v2/a/tags/list/manifests/1", "docker.io/a/tags/list"),
        ("/v2/a/referrers/b/manifests/list", "docker.io/a/referrers/b"),
        ("/v2/a%2Fb/manifests/1", "docker.io/a/b"),
        ("/v2/%61/%62/manifests/1", "docker.io/a/b"),
    ],
)
def test_a_name_is_split_at_the_last_noun_after_one_decoding(target: str, location: str) -> None:
    assert located(target) == location


def test_a_percent_encoded_digest_is_the_digest() -> None:
    route = match(f"/v2/acme/app/blobs/{DIGEST.replace(':', '%3A')}")
    assert route == BlobRoute(APP, DIGEST)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("", PathUnknown),
        ("*", PathUnknown),
        ("v2/", PathUnknown),
        ("//v2/", PathUnknown),
        ("/v1/_ping", PathUnknown),
        ("/v2x", PathUnknown),
        ("/V2/", PathUnknown),
        ("/healthz", PathUnknown),
        ("/v2/acme/app", PathUnknown),
        ("/v2/acme/app/", PathUnknown),
        ("/v2/acme/app/tags", PathUnknown),
        ("/v2/acme/app/tags/list/", PathUnknown),
        ("/v2/acme/app/blobs/uploads/", PathUnknown),
        ("/v2/acme/app/blobs/uploads/1234", PathUnknown),
        ("/../etc/passwd", PathUnknown),
        ("/v2/manifests/1", InvalidRepository),
        ("/v2/Acme/manifests/1", InvalidRepository),
        ("/v2/_catalog/manifests/1", InvalidRepository),
        ("/v2/acme//app/manifests/1", InvalidRepository),
        ("/v2//manifests/1", InvalidRepository),
        ("/v2/../../etc/manifests/1", InvalidRepository),
        ("/v2/acme/./app/manifests/1", InvalidRepository),
        ("/v2/acme/%2e%2e/manifests/1", InvalidRepository),
        ("/v2/acme%00/manifests/1", InvalidRepository),
        ("/v2/acme/app%252f/manifests/1", InvalidRepository),
        ("/v2/acme%zz/manifests/1", InvalidRepository),
        ("/v2/acme%ff/manifests/1", InvalidRepository),
        ("/v2/acme\xff/manifests/1", InvalidRepository),
        ("/v2/acme%0d%0aX/manifests/1", InvalidRepository),
        ("/v2/" + "a" * 256 + "/manifests/1", InvalidRepository),
        ("/v2/ghcr.io//app/manifests/1", InvalidRepository),
        ("/v2/ghcr.io/../app/manifests/1", InvalidRepository),
        ("/v2/nowhere.example:5000/app/manifests/1", InvalidRepository),
        ("/v2/acme/app/manifests/", InvalidReference),
        ("/v2/acme/app/manifests/.INVALID_MANIFEST_NAME", InvalidReference),
        ("/v2/acme/app/manifests/..", InvalidReference),
        ("/v2/acme/app/manifests/" + "a" * 129, InvalidReference),
        ("/v2/acme/app/manifests/a%00b", InvalidReference),
        ("/v2/acme/app/manifests/sha256:abc", InvalidDigest),
        ("/v2/acme/app/manifests/md5:" + "a" * 32, InvalidDigest),
        ("/v2/acme/app/blobs/latest", InvalidDigest),
        ("/v2/acme/app/blobs/", InvalidDigest),
        ("/v2/acme/app/blobs/sha256:" + "A" * 64, InvalidDigest),
        ("/v2/acme/app/blobs/sha256:" + "a" * 63, InvalidDigest),
        ("/v2/acme/app/blobs/sha256:" + "a" * 64 + "%0a", InvalidDigest),
        ("/v2/acme/app/blobs/sha256:..%2f..%2f" + "a" * 58, PathUnknown),
        ("/v2/acme/app/referrers/sha256:abc", InvalidDigest),
        ("/v2/acme/app/tags/list?n=x", PageSizeInvalid),
        ("/v2/_catalog?n=-1", PageSizeInvalid),
        ("/v2/acme/app/manifests/1?ns=nowhere.example", NamespaceUnknown),
        ("/v2/?ns=nowhere.example", NamespaceUnknown),
        ("/v2/acme/app/manifests/1?ns=ghcr.io%00", NamespaceUnknown),
        ("/v2/acme/app/manifests/1?ns=%ff", NamespaceUnknown),
        ("/v2/acme/app/manifests/1?ns=\xff", NamespaceUnknown),
    ],
)
def test_what_names_nothing_is_refused(target: str, error: type[Exception]) -> None:
    with pytest.raises((Refusal, InvalidName)) as caught:
        match(target)
    assert type(caught.value) is error


def test_an_unknown_ns_is_told_what_is_configured() -> None:
    with pytest.raises(NamespaceUnknown, match=r"'quay\.io'.*docker\.io, .*ghcr\.io"):
        match("/v2/acme/app/manifests/1?ns=quay.io")


def test_the_prefix_is_part_of_every_path_but_the_root() -> None:
    assert match("/", prefix="/mirror/") == RootRoute()
    assert match("/mirror/v2/", prefix="/mirror/") == BaseRoute("")
    tags = match("/mirror/v2/acme/app/tags/list", prefix="/mirror/")
    assert isinstance(tags, TagsRoute)
    assert (tags.path, tags.asked.name) == ("/mirror/v2/acme/app/tags/list", "acme/app")
    for target in ("/v2/", "/mirror/", "/mirror/acme/app/manifests/1", "/mirrorv2/"):
        with pytest.raises(PathUnknown):
            match(target, prefix="/mirror/")


@pytest.mark.parametrize(
    ("target", "namespace"),
    [
        ("/", ""),
        ("/v2/?ns=ghcr.io", "ghcr.io"),
        ("/v2/_catalog?ns=ghcr.io", "ghcr.io"),
        ("/v2/acme/app/tags/list?ns=index.docker.io", "index.docker.io"),
        ("/v2/acme/app/manifests/1?ns=ghcr.io", "ghcr.io"),
        ("/v2/ghcr.io/acme/app/manifests/1", ""),
    ],
)
def test_the_ns_that_chose_is_kept_for_the_response(target: str, namespace: str) -> None:
    assert namespace_of(match(target)) == namespace


def test_the_catalog_is_seen_from_the_upstream_that_was_chosen() -> None:
    by_host = match("/v2/_catalog", host=b"ghcr.io")
    assert by_host == CatalogRoute("/v2/_catalog", "ghcr.io", PageQuery())


def test_host_is_not_needed_for_a_single_upstream() -> None:
    assert not Router((HUB,)).heeds_host
    assert Router((HUB, GHCR)).heeds_host


def test_a_remembered_target_still_depends_on_its_host() -> None:
    router = Router((HUB, GHCR))
    for _ in range(2):
        for host, upstream in ((b"ghcr.io", "ghcr.io"), (None, "docker.io")):
            route = router.match(b"/v2/acme/app/manifests/1", host)
            assert isinstance(route, ManifestRoute)
            assert route.asked.location.upstream == upstream


def test_the_memory_of_targets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_MEMO_ENTRIES", 10)
    router = Router((HUB,))
    for number in range(100):
        router.match(b"/v2/acme/app/manifests/%d" % number, None)
    router.match(b"/v2/acme/app/manifests/1?x=" + b"y" * 1_000, None)
    assert len(router._memo._young) <= 10
    assert len(router._memo._old) <= 10


def test_a_target_in_use_outlives_the_turn_of_the_memo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_MEMO_ENTRIES", 10)
    router = Router((HUB,))
    first = router.match(b"/v2/acme/app/manifests/used", None)
    for number in range(100):
        router.match(b"/v2/acme/app/manifests/%d" % number, None)
        assert router.match(b"/v2/acme/app/manifests/used", None) is first
