"""Real clients pull real images through the mirror, whole, and upstream is asked once."""

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

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

KINDS: tuple[type[Client], ...] = (
    SkopeoByAddress,
    SkopeoByMirror,
    Podman,
    PodmanByPrefix,
    Buildah,
    Containerd,
    Dockerd,
)
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
    site = site_of(directory / "mirror", upstream.url, USER, PASSWORD)
    with ExitStack() as stack:
        for big in (site.data, directory / "state"):
            stack.callback(shutil.rmtree, big, ignore_errors=True)
        mirror = stack.enter_context(site.start())
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
