"""Which upstream is asked: by `ns`, by a path's prefix, by Host, else the default; and no other."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.fakes.mirror import Mirror, site_of
from tests.fakes.upstream import ScriptedUpstream, ThreadedUpstream
from tests.fakes.upstream_content import Image
from tests.system.lab import message_of, site_of_all
from tests.system.raw import Answer, ask

pytestmark = pytest.mark.system

REPOSITORY = "acme/app"
GHCR, QUAY = "ghcr.test", "quay.test:5443"


@dataclass(frozen=True, slots=True)
class Fleet:
    """A mirror of three upstreams, each with another image under the same name."""

    mirror: Mirror
    upstreams: dict[str, ScriptedUpstream]
    images: dict[str, Image] = field(repr=False)

    def ask(self, target: str, host: str | None = None, method: str = "GET") -> Answer:
        """Ask the mirror, as the host that the client has for it."""
        return ask(self.mirror.address, target, {"Host": host} if host else {}, method)

    def counts(self) -> dict[str, int]:
        """How often each upstream was asked."""
        return {name: upstream.count() for name, upstream in self.upstreams.items()}

    def find_asked(self, target: str, host: str | None = None) -> str:
        """Ask for something; tell which upstream's it was, and see that no other was asked."""
        before = self.counts()
        answer = self.ask(target, host)
        assert answer.status == 200, answer.body
        asked = [name for name, count in self.counts().items() if count > before[name]]
        assert len(asked) == 1
        assert answer.digest == self.images[asked[0]].manifest
        return asked[0]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One mirror for all."""
    with ExitStack() as stack:
        upstreams = {}
        for name in ("docker.io", GHCR, QUAY):
            upstreams[name] = stack.enter_context(ThreadedUpstream()).upstream
        upstreams[QUAY].path = "/artifactory/quay"
        images = {
            name: upstream.content.add_image(REPOSITORY, "1", (name.encode(),))
            for name, upstream in upstreams.items()
        }
        others = {name: upstreams[name].url for name in (GHCR, QUAY)}
        site = site_of_all(tmp_path_factory.mktemp("fleet"), upstreams["docker.io"].url, others)
        yield Fleet(stack.enter_context(site.start()), upstreams, images)


TAG = f"/v2/{REPOSITORY}/manifests/1"


@pytest.mark.parametrize(
    ("target", "host", "upstream"),
    [
        (TAG, None, "docker.io"),
        (TAG, "mirror.test", "docker.io"),
        (TAG, "mirror.test:5000", "docker.io"),
        # ns
        (f"{TAG}?ns=docker.io", None, "docker.io"),
        (f"{TAG}?ns=registry-1.docker.io", None, "docker.io"),
        (f"{TAG}?ns=index.docker.io", None, "docker.io"),
        (f"{TAG}?ns={GHCR}", None, GHCR),
        (f"{TAG}?ns=GHCR.test", None, GHCR),
        (f"{TAG}?ns={QUAY}", None, QUAY),
        (f"{TAG}?ns=quay.test%3A5443", None, QUAY),
        (f"{TAG}?other=1&ns={GHCR}", None, GHCR),
        # a prefix
        (f"/v2/docker.io/{REPOSITORY}/manifests/1", None, "docker.io"),
        (f"/v2/{GHCR}/{REPOSITORY}/manifests/1", None, GHCR),
        (f"/v2/{QUAY}/{REPOSITORY}/manifests/1", None, QUAY),
        # Host
        (TAG, GHCR, GHCR),
        (TAG, f"{GHCR}:443", GHCR),
        (TAG, GHCR.upper(), GHCR),
        (TAG, QUAY, QUAY),
        (TAG, "quay.test", "docker.io"),
        (TAG, "index.docker.io", "docker.io"),
        # several of them: ns before prefix before Host
        (f"{TAG}?ns={GHCR}", QUAY, GHCR),
        (f"/v2/{GHCR}/{REPOSITORY}/manifests/1", QUAY, GHCR),
        (f"/v2/{GHCR}/{REPOSITORY}/manifests/1?ns={GHCR}", QUAY, GHCR),
    ],
)
def test_one_upstream_is_asked(fleet: Fleet, target: str, host: str | None, upstream: str) -> None:
    assert fleet.find_asked(target, host) == upstream


def test_a_prefix_is_part_of_the_name_where_ns_says_something_else(fleet: Fleet) -> None:
    name = f"{GHCR}/{REPOSITORY}"
    added = fleet.upstreams[QUAY].content.add_image(name, "1", (b"named like a registry",))
    answer = fleet.ask(f"/v2/{name}/manifests/1?ns={QUAY}")
    assert answer.digest == added.manifest


@pytest.mark.parametrize("path", ["/", "manifests/1", "tags/list"])
@pytest.mark.parametrize("ns", ["other.test", "quay.test", "127.0.0.1", "docker.io.evil.test"])
def test_an_unknown_ns_is_refused_with_those_that_are_known(
    fleet: Fleet, path: str, ns: str
) -> None:
    before = fleet.counts()
    target = "/v2/" if path == "/" else f"/v2/{REPOSITORY}/{path}"
    answer = fleet.ask(f"{target}?ns={ns}")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    for name in (ns, "docker.io", GHCR, QUAY):
        assert name in message_of(answer)
    assert "oci-namespace" not in answer.headers
    assert fleet.counts() == before


@pytest.mark.parametrize(
    ("target", "host", "told"),
    [
        (f"{TAG}?ns={GHCR}", None, GHCR),
        (f"/v2/?ns={GHCR}", None, GHCR),
        (f"/v2/{REPOSITORY}/manifests/none?ns={GHCR}", None, GHCR),
        (f"/v2/{GHCR}/{REPOSITORY}/manifests/1", None, None),
        (TAG, GHCR, None),
        (TAG, None, None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_namespace_is_told_where_ns_chose_it(
    fleet: Fleet, target: str, host: str | None, told: str | None, method: str
) -> None:
    assert fleet.ask(target, host, method).headers.get("oci-namespace") == told


def test_a_prefix_that_is_no_registry_of_ours_is_a_repository_of_the_default(fleet: Fleet) -> None:
    default = fleet.upstreams["docker.io"]
    added = default.content.add_image("other.test/acme/app", "1", (b"other",))
    assert fleet.ask("/v2/other.test/acme/app/manifests/1").digest == added.manifest


def test_equal_names_at_two_upstreams_are_two_repositories(fleet: Fleet) -> None:
    ours = fleet.images[GHCR].layers[0]
    assert fleet.ask(f"/v2/{REPOSITORY}/blobs/{ours}?ns={GHCR}").status == 200
    assert fleet.ask(f"/v2/{REPOSITORY}/blobs/{ours}?ns={QUAY}").status == 404


def test_the_routing_is_logged_at_start(fleet: Fleet) -> None:
    for name, upstream in fleet.upstreams.items():
        fleet.mirror.child.wait_for(
            rf"route upstream={name} url={upstream.url} namespaces=\S*{name}"
        )


# Docker Hub's `library/`, by way of a proxy, as nothing here may ask the real one


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mirror, ScriptedUpstream]]:
    """A mirror that takes its upstream for Docker Hub, which a proxy plays."""
    site = site_of(tmp_path_factory.mktemp("hub"), "http://registry-1.docker.io")
    with ThreadedUpstream() as thread, site.start(http_proxy=thread.upstream.url) as mirror:
        yield mirror, thread.upstream


@pytest.mark.parametrize(
    "target",
    [
        "/v2/busybox/manifests/1",
        "/v2/library/busybox/manifests/1",
        "/v2/docker.io/busybox/manifests/1",
        "/v2/docker.io/library/busybox/manifests/1",
        "/v2/busybox/manifests/1?ns=docker.io",
    ],
)
def test_a_short_name_of_docker_hub_lies_under_library(
    hub: tuple[Mirror, ScriptedUpstream], target: str
) -> None:
    mirror, upstream = hub
    image = upstream.content.add_image("library/busybox", "1")
    answer = ask(mirror.address, target)
    assert (answer.status, answer.digest) == (200, image.manifest)
    assert {seen.repository for seen in upstream.requests} == {"library/busybox"}


def test_a_short_name_elsewhere_is_itself(fleet: Fleet) -> None:
    added = fleet.upstreams[GHCR].content.add_image("busybox", "1", (b"short",))
    assert fleet.ask(f"/v2/busybox/manifests/1?ns={GHCR}").digest == added.manifest
