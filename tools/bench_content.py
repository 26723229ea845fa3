"""What is served in a benchmark: the same bytes for every target, made anew for each run.

Invariant: what lies below `root` is a registry as a tree of static files: each path is the path of
a request, each file the body of its answer. nginx serves it as the upstream and as the target that
is compared with; the mirrors get it from there.
Bytes are random, so that nothing on the way can make them smaller, but the same in each run.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from engine.descriptor import OCI_MANIFEST
from tools.bench_model import Fetch

KIB = 1024
MIB = 1024 * KIB
TAG = "v1"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much content is made, in bytes."""

    large: int = 100 * MIB
    cold: int = 200_000_000
    limited: int = 64_000_000
    layer: int = 4 * MIB
    churn: int = 8 * MIB
    churn_count: int = 64
    image_count: int = 64


QUICK_SIZES = Sizes(cold=50_000_000, limited=16_000_000, layer=MIB, churn_count=24)


@dataclass(frozen=True, slots=True)
class Image:
    """What a client asks for to have an image: its manifest by tag, then its blobs."""

    by_tag: Fetch
    by_digest: Fetch
    blobs: tuple[Fetch, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that is asked for."""

    root: Path
    tags: dict[str, str]  # the digest of each manifest that has a path by tag
    app: Image  # blobs: configuration, 1 KiB, 64 KiB, 1 MiB, 100 MiB
    cold: Fetch
    limited: Fetch
    twelve: Image
    images: tuple[Image, ...]
    churn: tuple[Fetch, ...]


class _Maker:
    """Writes repositories below `root`."""

    def __init__(self, root: Path) -> None:
        self.tags: dict[str, str] = {}
        self._root = root
        self._random = random.Random(20)
        self._blobs: dict[str, Path] = {}

    def blob(self, repository: str, size_bytes: int) -> Fetch:
        return self.write(repository, "blobs", self._random.randbytes(size_bytes))

    def write(self, repository: str, noun: str, body: bytes, name: str = "") -> Fetch:
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        path = f"/v2/{repository}/{noun}/{name or digest}"
        file = self._root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        self._blobs.setdefault(digest, file)
        return Fetch(path, len(body), xxhash.xxh3_128_hexdigest(body))

    def share(self, repository: str, blob: Fetch) -> Fetch:
        """Serve a blob in another repository, too."""
        digest = digest_of(blob)
        path = f"/v2/{repository}/blobs/{digest}"
        file = self._root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(self._blobs[digest], file)
        return Fetch(path, blob.size_bytes, blob.xxh3)

    def image(self, repository: str, layers: Iterable[Fetch]) -> Image:
        blobs = [self.write(repository, "blobs", json.dumps({"of": repository}).encode()), *layers]
        named = [{"mediaType": "", "digest": digest_of(b), "size": b.size_bytes} for b in blobs]
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": named[0] | {"mediaType": "application/vnd.oci.image.config.v1+json"},
                "layers": [
                    layer | {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
                    for layer in named[1:]
                ],
            }
        ).encode()
        by_digest = self.write(repository, "manifests", body)
        by_tag = self.write(repository, "manifests", body, TAG)
        self.tags[by_tag.path] = digest_of(by_digest)
        return Image(by_tag, by_digest, tuple(blobs))


def digest_of(fetch: Fetch) -> str:
    """The digest that a path ends with."""
    return fetch.path.rpartition("/")[2]


def make_content(root: Path, sizes: Sizes) -> Content:
    """Write all content below `root`."""
    maker = _Maker(root)
    app_sizes = (KIB, 64 * KIB, MIB, sizes.large)
    app = maker.image("bench/app", [maker.blob("bench/app", size) for size in app_sizes])
    twelve = [maker.blob("bench/twelve", sizes.layer) for _ in range(12)]
    return Content(
        root=root,
        tags=maker.tags,
        app=app,
        cold=maker.blob("bench/cold", sizes.cold),
        limited=maker.blob("bench/cold", sizes.limited),
        twelve=maker.image("bench/twelve", twelve),
        images=_make_images(maker, sizes.image_count),
        churn=tuple(maker.blob("bench/churn", sizes.churn) for _ in range(sizes.churn_count)),
    )


def _make_images(maker: _Maker, count: int) -> tuple[Image, ...]:
    """Make images that share three layers of 2 MiB and have one of 256 KiB of their own."""
    shared = [maker.blob("bench/base", 2 * MIB) for _ in range(3)]
    images = []
    for number in range(count):
        name = f"bench/image{number:02}"
        layers = [maker.share(name, layer) for layer in shared]
        images.append(maker.image(name, [*layers, maker.blob(name, 256 * KIB)]))
    return tuple(images)
