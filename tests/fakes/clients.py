"""What all real container clients have in common: where they run, and what is asked of them.

Invariant: a client can reach the mirror and nothing else that answers as a registry: in its mount
namespace every registry's name is this machine, where nobody listens. A pull that succeeds was
served by the mirror alone. State lies in the test's directory; mounts end with the namespace.
"""

import hashlib
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import ClassVar, Self

from tests.fakes.child import OWN_MOUNTS, Child, clean_environment
from tests.fakes.images import Image, Manifest

# Debian's directories alone: what else lies in the caller's PATH is not what we test.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_COMMAND_TIMEOUT_S = 180.0
_ORIGINS = (
    "docker.io index.docker.io registry-1.docker.io auth.docker.io production.cloudflare.docker.com"
    " registry.docker.io quay.io ghcr.io"
)
# Where a command finds its sandbox's directory too: podman refuses a runroot of more than 50
# characters, sockets a path of more than 107, and pytest's directories are long.
SHORT = Path("/mnt")
# The rest is the command, which takes over the process and its id.
_ENTER = f'mount --bind "$0" /etc/hosts && mount --bind "$1" {SHORT} && shift && exec "$@"'
_CHUNK_BYTES = 1024 * 1024


class ClientFailed(Exception):
    """A client's command failed; the message bears what it said."""


class Keeps(Enum):
    """What a client holds of an image after a pull, so that it can be hashed."""

    EVERYTHING = "all manifests and blobs of an image index, byte for byte"
    BLOBS = "the manifests and blobs of one platform, byte for byte"
    ARCHIVES = "the manifest and configuration, and each layer unpacked"


class Sandbox:
    """A mount namespace for each command, over one directory of state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._hosts = directory / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {_ORIGINS}\n")
        self.environment = clean_environment(directory, XDG_RUNTIME_DIR=str(directory))

    def run(self, *command: str) -> str:
        """Run a command to its end; return its standard output. Raises `ClientFailed`."""
        done = subprocess.run(
            self._argv(command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise ClientFailed(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def start(self, *command: str) -> Child:
        """Start a daemon."""
        log = self.directory / f"{Path(command[0]).name}.log"
        return Child(self._argv(command), env=self.environment, log=log)

    def can_overlay(self) -> bool:
        """Whether overlayfs works on this directory, which it does not on top of itself."""
        parts = [self.directory / "probe" / name for name in ("lower", "upper", "work", "merged")]
        for part in parts:
            part.mkdir(parents=True, exist_ok=True)
        lower, upper, work, merged = parts
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        try:
            self.run("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
        except ClientFailed:
            return False
        return True

    def _argv(self, command: tuple[str, ...]) -> list[str]:
        enter = [*OWN_MOUNTS, "sh", "-c", _ENTER]
        return [*enter, str(self._hosts), str(self.directory), *command]


class Client(ABC):
    """One real client with state of its own, pointed at the mirror on a port of 127.0.0.1."""

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    keeps: ClassVar[Keeps]

    def __init__(self, sandbox: Sandbox, mirror_port: int) -> None:
        self.sandbox = sandbox
        self.work = sandbox.directory
        self.mirror = f"127.0.0.1:{mirror_port}"

    @classmethod
    def find_obstacle(cls) -> str | None:
        """Say why this client cannot run on this machine; None when nothing speaks against it."""
        if os.geteuid() != 0:
            return "needs root"
        missing = [name for name in cls.programs if shutil.which(name, path=_PATH) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        probe = [*OWN_MOUNTS, "true"]
        if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            return "no mount namespaces here"
        return None

    @abstractmethod
    def pull(self, image: Image) -> None:
        """Pull `image`. Raises `ClientFailed`."""

    @abstractmethod
    def hash_all(self, image: Image) -> set[str]:
        """Hash every piece of the pulled `image`, as the bytes now lie in the client's store."""

    @abstractmethod
    def remove(self, image: Image) -> None:
        """Forget `image`, so that the next pull asks for everything again."""

    @classmethod
    def expected(cls, image: Image) -> set[str]:
        """Digests that `hash_all` finds after a faultless pull."""
        host = image.host_manifest
        match cls.keeps:
            case Keeps.EVERYTHING:
                return {digest for one in image.manifests() for digest in _stored(one)}
            case Keeps.BLOBS:
                return {image.top.blob.digest, *_stored(host)}
            case Keeps.ARCHIVES:
                assert host.config is not None
                unpacked = {layer.diff_id for layer in host.layers}
                return {image.top.blob.digest, host.config.digest, *unpacked}

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Keep the daemon up, where the client has one. Raises `ChildFailed` if it won't start."""
        yield self


def _stored(manifest: Manifest) -> set[str]:
    return {manifest.blob.digest, *(blob.digest for blob in manifest.blobs)}


def hub_name(image: Image) -> str:
    """Name `image` as on Docker Hub."""
    return f"docker.io/{image.repository}:{image.tag}"


def hash_file(path: Path) -> str:
    """Give the digest of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def hash_tree(directory: Path) -> set[str]:
    """Give the digests of all files under `directory`."""
    return {hash_file(path) for path in directory.rglob("*") if path.is_file()}


def start_fresh(directory: Path) -> Path:
    """Empty `directory`, making it where it is missing."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
