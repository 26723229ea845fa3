"""The storage directory of an official registry in proxy mode: made by hand, or by the real one.

Layout: distribution `registry/storage/paths.go`.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.names import Digest
from tests.fakes.distribution import Registry
from tests.fakes.images import Image, sha256_of
from tests.system.raw import ask

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Storage:
    """A `rootdirectory`."""

    directory: Path

    @property
    def root(self) -> Path:
        """Where the registry's own tree begins."""
        return self.directory / "docker" / "registry" / "v2"

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        algorithm, _, digits = digest.partition(":")
        return self.root / "blobs" / algorithm / digits[:2] / digits / "data"

    def repository(self, name: str) -> Path:
        """The directory of a repository."""
        return self.root / "repositories" / name

    def add_schedule(self) -> None:
        """Have it be a proxy's."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "scheduler-state.json").write_text("{}")

    def add_blob(self, data: bytes, digest: str | None = None) -> Digest:
        """Store a blob that nobody links."""
        named = Digest(digest or sha256_of(data))
        _write(self.blob(named), data)
        return named

    def link(self, place: Path, digest: str) -> Path:
        """Write the link of a digest below `_layers` or `_manifests/revisions`."""
        algorithm, _, digits = digest.partition(":")
        return _write(place / algorithm / digits / "link", digest.encode())

    def add_layer(self, repository: str, data: bytes) -> Digest:
        """Store a blob and link it."""
        digest = self.add_blob(data)
        self.link(self.repository(repository) / "_layers", digest)
        return digest

    def add_tag(self, repository: str, tag: str, digest: str) -> Path:
        """Have a tag mean a manifest; it need not be there."""
        place = self.repository(repository) / "_manifests" / "tags" / tag
        self.link(place / "index", digest)
        return _write(place / "current" / "link", digest.encode())

    def add_image(self, image: Image) -> None:
        """Store an image as the proxy does once all of it was pulled."""
        for manifest in image.manifests():
            for blob in manifest.blobs:
                self.add_layer(image.repository, blob.data)
            digest = self.add_blob(manifest.blob.data)
            self.link(self.repository(image.repository) / "_manifests" / "revisions", digest)
        self.add_tag(image.repository, image.tag, image.top.blob.digest)

    def snapshot(self) -> dict[str, tuple[int, int, int, bytes]]:
        """What is there now: mode, owner, modification time and bytes of everything."""
        return {
            str(path): (
                path.lstat().st_mode,
                path.lstat().st_uid,
                path.lstat().st_mtime_ns,
                path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
            )
            for path in sorted(self.directory.rglob("*"))
        }


def digests_of(image: Image) -> set[str]:
    """Everything an image consists of."""
    return {manifest.blob.digest for manifest in image.manifests()} | {
        blob.digest for manifest in image.manifests() for blob in manifest.blobs
    }


def pull_all(address: str, image: Image) -> None:
    """Pull an image by tag, then all that it names, as a client does."""
    base = f"/v2/{image.repository}"
    accept = {"Accept": image.top.media_type}
    targets = [(f"{base}/manifests/{image.tag}", accept, image.top.blob.digest)]
    for manifest in image.manifests():
        own = {"Accept": manifest.media_type}
        digest = manifest.blob.digest
        targets.append((f"{base}/manifests/{digest}", own, digest))
        targets += [(f"{base}/blobs/{blob.digest}", {}, blob.digest) for blob in manifest.blobs]
    for target, headers, digest in targets:
        answer = ask(address, target, headers)
        assert (answer.status, answer.digest) == (200, digest), (target, answer.body[:300])


def wait_until_stored(storage: Storage, registry: Registry, images: Iterable[Image]) -> None:
    """Wait for what the registry stores behind its responses, and for its schedule.

    It tells nobody when it has done so.
    """
    paths = [storage.blob(digest) for image in images for digest in digests_of(image)]
    paths += [
        storage.repository(image.repository)
        / "_manifests"
        / "tags"
        / image.tag
        / "current"
        / "link"
        for image in images
    ]
    paths.append(storage.directory / "scheduler-state.json")
    until = time.monotonic() + _DEADLINE_S
    while missing := [path for path in paths if not path.exists()]:
        assert time.monotonic() < until, missing
        registry.served()


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
