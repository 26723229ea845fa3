"""Real clients pull real images through the mirror, whole, and upstream is asked once."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import pytest

from tests.fakes.child import ChildFailed
from tests.fakes.clients import Client, Keeps, Sandbox
from tests.fakes.clients_containers import (
    Buildah,
    Podman,
    PodmanByPrefix,
    SkopeoByAddress,
    SkopeoByMirror,
)
from tests.fakes.clients_daemons import Containerd, Dockerd
from tests.fakes.distribution import Registry
from tests.fakes.images import Image
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import Site, site_of
from tests.system.conftest import PASSWORD, USER, require_client, skip_client
from tests.system.raw import Answer, ask

KINDS: tuple[type[Client], ...] = (
    SkopeoByAddress,
    SkopeoByMirror,
    Podman,
    PodmanByPrefix,
    Buildah,
    Containerd,
    Dockerd,
)
HERD_COUNT = 50

Counts = Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Rig:
    """A client at a mirror of its own, both without content at first."""

    client: Client
    upstream: Registry

    def pull(self, image: Image) -> Counts:
        """Pull, check every byte, forget; return what upstream was asked."""
        before = self.upstream.counts()
        self.client.pull(image)
        asked = self.upstream.counts() - before
        missing = self.client.expected(image) - self.client.hash_all(image)
        assert not missing
        self.client.remove(image)
        return asked


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def rig(
    request: pytest.FixtureRequest, upstream: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """Each client in turn."""
    kind: type[Client] = request.param
    require_client(kind)
    directory = tmp_path_factory.mktemp("client")
    with ExitStack() as stack:
        mirror = stack.enter_context(
            site_of(directory / "mirror", upstream.url, USER, PASSWORD).start()
        )
        client = kind(Sandbox(directory / "state"), mirror.port)
        try:
            stack.enter_context(client.running())
        except ChildFailed as exc:
            skip_client(kind.name, f"its daemon does not start here: {exc}")
        yield Rig(client, upstream)


def gets_of(image: Image, keeps: Keeps) -> Counts:
    """Count the upstream GETs of a cold pull: each manifest and blob once, by its digest."""
    manifests = {image.top, image.host_manifest}
    if keeps is Keeps.EVERYTHING:
        manifests |= set(image.manifests())
    base = f"/v2/{image.repository}"
    paths = {f"{base}/manifests/{manifest.blob.digest}" for manifest in manifests}
    paths |= {f"{base}/blobs/{blob.digest}" for manifest in manifests for blob in manifest.blobs}
    return Counter(("GET", path) for path in paths)


def only(method: str, counts: Counts) -> Counts:
    """Keep the counts of one method."""
    return Counter({key: count for key, count in counts.items() if key[0] == method})


@pytest.mark.clients
@pytest.mark.system
@pytest.mark.parametrize("name", ["busy", "multi", "deep", "big", "private"])
def test_a_cold_pull_downloads_once_and_a_warm_one_nothing(rig: Rig, name: str) -> None:
    image: Image = getattr(catalogue(), name)
    cold = rig.pull(image)
    assert only("GET", cold) == gets_of(image, rig.client.keeps)
    warm = rig.pull(image)
    assert set(warm) == {("HEAD", f"/v2/{image.repository}/manifests/{image.tag}")}


@pytest.mark.clients
@pytest.mark.system
def test_two_clients_at_a_time_share_one_download(
    site: Site, upstream: Registry, tmp_path: Path
) -> None:
    require_client(SkopeoByAddress)
    require_client(Podman)
    image = catalogue().pair
    before = upstream.counts()
    with site.start() as mirror, ThreadPoolExecutor() as pool:
        clients: list[Client] = [
            SkopeoByAddress(Sandbox(tmp_path / "first"), mirror.port),
            Podman(Sandbox(tmp_path / "second"), mirror.port),
        ]
        list(pool.map(lambda client: client.pull(image), clients))
    for client in clients:
        assert not client.expected(image) - client.hash_all(image)
    asked = upstream.counts() - before
    assert only("GET", asked) == gets_of(image, Keeps.BLOBS)


def ask_at_once(address: str, target: str) -> list[Answer]:
    """Let `HERD_COUNT` clients ask the same at the same moment."""
    start = Barrier(HERD_COUNT)

    def ask_one(_: int) -> Answer:
        start.wait()
        return ask(address, target)

    with ThreadPoolExecutor(HERD_COUNT) as pool:
        return list(pool.map(ask_one, range(HERD_COUNT)))


@pytest.mark.system
def test_fifty_clients_on_one_cold_blob_cost_one_upstream_get(
    site: Site, upstream: Registry
) -> None:
    image = catalogue().herd
    blob = image.top.layers[0].blob
    target = f"/v2/{image.repository}/blobs/{blob.digest}"
    before = upstream.counts()
    with site.start() as mirror:
        answers = ask_at_once(mirror.address, target)
    assert {(answer.status, answer.digest) for answer in answers} == {(200, blob.digest)}
    assert only("GET", upstream.counts() - before) == Counter({("GET", target): 1})


@pytest.mark.system
def test_fifty_clients_on_one_cold_tag_cost_one_upstream_get(
    site: Site, upstream: Registry
) -> None:
    image = catalogue().herd
    manifests = f"/v2/{image.repository}/manifests"
    before = upstream.counts()
    with site.start() as mirror:
        answers = ask_at_once(mirror.address, f"{manifests}/{image.tag}")
    assert {(answer.status, answer.body) for answer in answers} == {(200, image.top.blob.data)}
    asked = upstream.counts() - before
    assert only("GET", asked) == Counter({("GET", f"{manifests}/{image.top.blob.digest}"): 1})
