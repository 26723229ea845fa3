"""containerd and dockerd: the clients that are daemons.

containerd sends `ns` with every request to a mirror; dockerd opens a connection for each request.
"""

import json
import tarfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Self

from tests.fakes.clients import SHORT, Client, Keeps, Sandbox, hash_tree, hub_name
from tests.fakes.images import Image, sha256_of
from tests.fakes.readme import recipe


class _Daemon(Client):
    """A client whose work a daemon does."""

    ready: ClassVar[str]  # what the daemon says when it can be used

    def __init__(self, sandbox: Sandbox, mirror_port: int) -> None:
        super().__init__(sandbox, mirror_port)
        self.socket = SHORT / "d.sock"
        self.has_overlay = sandbox.can_overlay()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Start the daemon, and stop it in the end."""
        with self.sandbox.start(*self._command()) as daemon:
            daemon.wait_for(self.ready)
            yield self

    @abstractmethod
    def _command(self) -> list[str]:
        """Write the daemon's configuration; return its command line."""


class Containerd(_Daemon):
    """`ctr images pull --hosts-dir`."""

    name = "containerd"
    programs = ("containerd", "ctr")
    ready = "containerd successfully booted"
    keeps = Keeps.BLOBS

    def _command(self) -> list[str]:
        config = self.work / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.work}/root"\nstate = "{SHORT}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.socket}"\n'
        )
        hosts = self.work / "hosts.d" / "docker.io"
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(recipe("toml", "[host.", self.mirror))
        return ["containerd", "--config", str(config)]

    def pull(self, image: Image) -> None:
        """Pull and unpack what this machine would run."""
        snapshotter = "overlayfs" if self.has_overlay else "native"
        hosts = ["--hosts-dir", str(self.work / "hosts.d"), "--snapshotter", snapshotter]
        self._ctr("images", "pull", *hosts, hub_name(image))

    def hash_all(self, image: Image) -> set[str]:
        """Hash the content store."""
        return hash_tree(self.work / "root" / "io.containerd.content.v1.content" / "blobs")

    def remove(self, image: Image) -> None:
        """Remove the image; `--sync` waits for its content and snapshots to go."""
        self._ctr("images", "rm", "--sync", hub_name(image))

    def _ctr(self, *arguments: str) -> None:
        self.sandbox.run("ctr", "--address", str(self.socket), *arguments)


class Dockerd(_Daemon):
    """`docker pull` with the README's daemon.json and dockerd's classic image store."""

    name = "dockerd"
    programs = ("dockerd", "docker", "containerd")
    ready = "API listen on"
    keeps = Keeps.ARCHIVES

    def _command(self) -> list[str]:
        config = self.work / "daemon.json"
        config.write_text(recipe("json", "registry-mirrors", self.mirror))
        options = [f"--data-root={self.work}/data", f"--exec-root={SHORT}/exec"]
        options += [f"--pidfile={SHORT}/pid"]
        driver = "overlay2" if self.has_overlay else "vfs"
        options += [f"--config-file={config}", f"--host=unix://{self.socket}"]
        options += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        options += [f"--storage-driver={driver}"]
        return ["dockerd", *options]

    def pull(self, image: Image) -> None:
        """Pull and unpack what this machine would run."""
        self._docker("pull", "--quiet", hub_name(image))

    def hash_all(self, image: Image) -> set[str]:
        """Hash what `docker save` gives out: the configuration and each layer's archive.

        dockerd does not give out the manifest; the digest that it verified stands in for it.
        """
        inspected = self._docker(
            "image", "inspect", "--format={{json .RepoDigests}}", hub_name(image)
        )
        digests = {named.partition("@")[2] for named in json.loads(inspected)}
        saved = self.work / "saved.tar"
        self._docker("save", f"--output={saved}", hub_name(image))
        with tarfile.open(saved) as archive:
            return digests | {_hash_member(archive, member) for member in archive.getmembers()}

    def remove(self, image: Image) -> None:
        """Remove the image with its layers."""
        self._docker("image", "rm", "--force", hub_name(image))

    def _docker(self, *arguments: str) -> str:
        return self.sandbox.run("docker", "--host", f"unix://{self.socket}", *arguments)


def _hash_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """Give the digest of a member's bytes; empty for what is not a file."""
    file = archive.extractfile(member) if member.isfile() else None
    return sha256_of(file.read()) if file else ""
