"""What a scripted upstream holds: repositories with blobs, manifests, tags and referrers."""

import hashlib
import json
import random
from dataclasses import dataclass, field

from engine.names import Digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes, algorithm: str = "sha256") -> Digest:
    """Name some bytes."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


def make_bytes(size: int, seed: int = 0) -> bytes:
    """Make incompressible bytes, the same for the same arguments."""
    return random.Random(seed).randbytes(size)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was added: its manifest, and everything below."""

    manifest: Digest
    config: Digest
    layers: tuple[Digest, ...]
    body: bytes  # the manifest's


@dataclass(slots=True)
class Holding:
    """One repository."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # type and body
    tags: dict[str, str] = field(default_factory=dict)
    referrers: dict[str, list[dict[str, object]]] = field(default_factory=dict)


class Content:
    """All repositories. Anything may change at any time: a tag moves by adding it again."""

    def __init__(self) -> None:
        self.repositories: dict[str, Holding] = {}

    def holding(self, repository: str) -> Holding:
        """Give a repository, new if need be."""
        return self.repositories.setdefault(repository, Holding())

    def add_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> Digest:
        """Add a blob."""
        digest = digest_of(data, algorithm)
        self.holding(repository).blobs[digest] = data
        return digest

    def add_manifest(
        self, repository: str, body: bytes, media_type: str = MANIFEST, tag: str | None = None
    ) -> Digest:
        """Add a manifest, under a tag if one is given; a `subject` in it makes it a referrer."""
        digest = digest_of(body)
        holding = self.holding(repository)
        holding.manifests[digest] = (media_type, body)
        if tag is not None:
            holding.tags[tag] = digest
        try:
            parsed = json.loads(body)
        except ValueError:
            return digest
        if isinstance(parsed, dict) and "subject" in parsed:
            referrer = {"mediaType": media_type, "digest": digest, "size": len(body)}
            referrer["artifactType"] = parsed.get("artifactType", "")
            holding.referrers.setdefault(parsed["subject"]["digest"], []).append(referrer)
        return digest

    def add_image(
        self,
        repository: str,
        tag: str | None = None,
        layers: tuple[bytes, ...] = (b"a layer",),
        config: bytes = b"{}",
    ) -> Image:
        """Add layers, a configuration and the manifest that names them."""
        digests = tuple(self.add_blob(repository, layer) for layer in layers)
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor(CONFIG, config),
                "layers": [descriptor(LAYER, layer) for layer in layers],
            }
        ).encode()
        config_digest = self.add_blob(repository, config)
        return Image(self.add_manifest(repository, body, tag=tag), config_digest, digests, body)

    def add_image_index(self, repository: str, tag: str | None, manifests: list[bytes]) -> Digest:
        """Add an image index of manifests (their bodies) that were added."""
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": IMAGE_INDEX,
                "manifests": [descriptor(MANIFEST, manifest) for manifest in manifests],
            }
        ).encode()
        return self.add_manifest(repository, body, IMAGE_INDEX, tag)


def descriptor(media_type: str, data: bytes) -> dict[str, object]:
    """Describe some bytes."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
