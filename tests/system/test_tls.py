"""The mirror over TLS as users run it: real clients with a private CA, and large bodies."""

import hashlib
import http.client
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.authority import Authority, Pair
from tests.fakes.clients import ClientFailed, Sandbox
from tests.fakes.clients_containers import SkopeoByAddress, SkopeoByMirror
from tests.fakes.clients_daemons import Containerd, Dockerd
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import Mirror, Site, site_of
from tests.fakes.readme import TLS_MIRROR, recipe
from tests.fakes.upstream import ThreadedUpstream
from tests.system.conftest import require_client

pytestmark = pytest.mark.system

MIB = 1024 * 1024
REPOSITORY = "library/busybox"
_ETC = Path("/etc/docker")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def upstream_of_blobs() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as threaded:
        yield threaded


def secure(site: Site, pair: Pair, **others: object) -> Site:
    site.config["http"] = {"addr": "127.0.0.1:0", "tls": pair.section(**others)}
    return site


def open_blob(
    mirror: Mirror, authority: Authority, digest: str, *, method: str = "GET", span: str = ""
) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", mirror.port, context=authority.client(), timeout=60
    )
    headers = {"Range": span} if span else {}
    connection.request(method, f"/v2/{REPOSITORY}/blobs/{digest}", headers=headers)
    return connection, connection.getresponse()


def test_a_large_blob_is_whole_and_costs_little_memory(
    tmp_path: Path, authority: Authority, upstream_of_blobs: ThreadedUpstream
) -> None:
    content = os.urandom(MIB) * 100
    digest = upstream_of_blobs.upstream.content.add_blob(REPOSITORY, content)
    site = secure(site_of(tmp_path / "m", upstream_of_blobs.upstream.url), authority.issue("m"))
    with site.start() as mirror:
        assert read_slowly(mirror, authority, digest) == digest
        before = mirror.child.peak_rss_bytes
        readers = [open_blob(mirror, authority, digest) for _ in range(20)]
        for _, response in readers:
            assert len(response.read(1000)) == 1000
        assert read_slowly(mirror, authority, digest) == digest
        # 21 bodies of 100 MiB are under way; of each a piece may wait.
        assert mirror.child.peak_rss_bytes - before < 40 * MIB
        for connection, _ in readers:
            connection.close()
        assert mirror.drain() == 0


def read_slowly(mirror: Mirror, authority: Authority, digest: str) -> str:
    """Read a blob in small pieces, and hash it."""
    connection, response = open_blob(mirror, authority, digest)
    hasher = hashlib.sha256()
    with closing(connection):
        while piece := response.read(20_000):
            hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"


def test_ranges_and_heads_are_answered(
    tmp_path: Path, authority: Authority, upstream_of_blobs: ThreadedUpstream
) -> None:
    content = os.urandom(3 * MIB)
    digest = upstream_of_blobs.upstream.content.add_blob(REPOSITORY, content)
    site = secure(site_of(tmp_path / "m", upstream_of_blobs.upstream.url), authority.issue("m"))
    with site.start() as mirror:
        for _ in ("cold", "warm"):
            connection, response = open_blob(
                mirror, authority, digest, span="bytes=1000000-2999999"
            )
            with closing(connection):
                assert (response.status, response.read()) == (206, content[1_000_000:3_000_000])
            connection, response = open_blob(mirror, authority, digest, method="HEAD")
            with closing(connection):
                assert response.headers["Content-Length"] == str(len(content))


# Real clients


class SkopeoOverTLS(SkopeoByAddress):
    """skopeo that knows the CA as the README says."""

    def trust(self, authority: Authority) -> None:
        directory = self.work / ".config" / "containers" / "certs.d" / self.mirror
        directory.mkdir(parents=True)
        shutil.copy(authority.path, directory / "ca.crt")

    def pull_securely(self) -> None:
        image = catalogue().pair
        self._copy("--all", f"docker://{self.mirror}/{image.repository}:{image.tag}")
        assert not self.expected(image) - self.hash_all(image)


@pytest.mark.clients
def test_skopeo_pulls_by_the_readmes_recipe(site: Site, tmp_path: Path) -> None:
    require_client(SkopeoOverTLS)
    authority = Authority(tmp_path)
    with secure(site, authority.issue("mirror")).start() as mirror:
        client = SkopeoOverTLS(Sandbox(tmp_path / "state"), mirror.port)
        with pytest.raises(ClientFailed, match="signed by unknown authority"):
            client.pull_securely()
        mirror.child.wait_for("TLS handshake failed .*the client does not trust our certificate")
        client.trust(authority)
        client.pull_securely()


class SkopeoMirrorOverTLS(SkopeoByMirror):
    """skopeo with the README's registries.conf for TLS."""

    def trust(self, authority: Authority) -> None:
        directory = self.work / ".config" / "containers" / "certs.d" / self.mirror
        directory.mkdir(parents=True)
        shutil.copy(authority.path, directory / "ca.crt")
        text = recipe("toml", "[[registry.mirror]]", self.mirror, written=TLS_MIRROR)
        Path(self.registries).write_text(text)


@pytest.mark.clients
def test_skopeo_uses_it_as_a_mirror(site: Site, tmp_path: Path) -> None:
    require_client(SkopeoMirrorOverTLS)
    authority, image = Authority(tmp_path), catalogue().pair
    with secure(site, authority.issue("mirror")).start() as mirror:
        client = SkopeoMirrorOverTLS(Sandbox(tmp_path / "state"), mirror.port)
        client.trust(authority)
        client.pull(image)
        assert not client.expected(image) - client.hash_all(image)


class ContainerdOverTLS(Containerd):
    """containerd with the README's hosts.toml for TLS."""

    def trust(self, authority: Authority, pair: Pair | None = None) -> None:
        text = recipe("toml", "[host.", self.mirror, written=TLS_MIRROR)
        text = text.replace("/etc/containerd/certs.d/mirror-ca.pem", str(authority.path))
        if pair is not None:
            text += f'  client = [["{pair.certificate}", "{pair.key}"]]\n'
        (self.work / "hosts.d" / "docker.io" / "hosts.toml").write_text(text)


@pytest.mark.clients
def test_containerd_shows_its_certificate(site: Site, tmp_path: Path) -> None:
    require_client(ContainerdOverTLS)
    authority, image = Authority(tmp_path), catalogue().pair
    secured = secure(site, authority.issue("mirror"), clientcas=[str(authority.path)])
    with secured.start() as mirror:
        client = ContainerdOverTLS(Sandbox(tmp_path / "state"), mirror.port)
        with client.running():
            client.trust(authority)
            with pytest.raises(ClientFailed):
                client.pull(image)
            mirror.child.wait_for("TLS handshake failed .*the client shows no certificate")
            client.trust(authority, authority.issue("runner-1"))
            client.pull(image)
            assert not client.expected(image) - client.hash_all(image)


class DockerdOverTLS(Dockerd):
    """dockerd with the README's daemon.json for TLS, and certs.d in the place of the machine's."""

    @classmethod
    def find_obstacle(cls) -> str | None:
        return super().find_obstacle() or (None if _ETC.is_dir() else f"no {_ETC} to mount over")

    def trust(self, authority: Authority) -> None:
        directory = self.work / "etc" / "certs.d" / self.mirror
        directory.mkdir(parents=True)
        shutil.copy(authority.path, directory / "ca.crt")

    def _command(self) -> list[str]:
        command = super()._command()
        text = recipe("json", "registry-mirrors", self.mirror, written=TLS_MIRROR)
        (self.work / "daemon.json").write_text(text)
        enter = f'mount --bind "$0" {_ETC} && exec "$@"'
        return ["sh", "-c", enter, str(self.work / "etc"), *command]


@pytest.mark.clients
def test_dockerd_uses_it_as_a_mirror(site: Site, tmp_path: Path) -> None:
    require_client(DockerdOverTLS)
    authority, image = Authority(tmp_path), catalogue().pair
    with secure(site, authority.issue("mirror")).start() as mirror:
        client = DockerdOverTLS(Sandbox(tmp_path / "state"), mirror.port)
        client.trust(authority)
        with client.running():
            client.pull(image)
            assert not client.expected(image) - client.hash_all(image)
