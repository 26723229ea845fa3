"""Real images, built offline from real files, the same bytes on every run of a machine.

Invariant: what is built here unpacks in every client: layers are whole tar archives, and the
configuration names their uncompressed digests in order. Nothing here pushes or serves.
Source: OCI image-spec manifest.md, config.md, image-index.md; Docker image manifest v2, schema 2.
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

HOST_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
OTHER_ARCHITECTURE = "arm64" if HOST_ARCHITECTURE == "amd64" else "amd64"

_OCI = "application/vnd.oci.image"
_DOCKER = "application/vnd.docker"
OCI_INDEX = f"{_OCI}.index.v1+json"
_CREATED = "2026-01-01T00:00:00Z"


class Format(Enum):
    """The media types of a manifest, its configuration, its gzip layers and its plain layers."""

    OCI = (
        f"{_OCI}.manifest.v1+json",
        f"{_OCI}.config.v1+json",
        f"{_OCI}.layer.v1.tar+gzip",
        f"{_OCI}.layer.v1.tar",
    )
    DOCKER = (
        f"{_DOCKER}.distribution.manifest.v2+json",
        f"{_DOCKER}.container.image.v1+json",
        f"{_DOCKER}.image.rootfs.diff.tar.gzip",
        f"{_DOCKER}.image.rootfs.diff.tar",
    )


def sha256_of(data: bytes) -> str:
    """Give the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes and the digest they have."""

    data: bytes = field(repr=False)
    digest: str

    @classmethod
    def of(cls, data: bytes) -> "Blob":
        """Name `data` by its digest."""
        return cls(data, sha256_of(data))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as it is stored, and the digest of its tar archive."""

    blob: Blob
    diff_id: str
    is_gzipped: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an image index, with all that it names."""

    blob: Blob
    media_type: str
    config: Blob | None = None
    layers: tuple[Layer, ...] = ()
    children: tuple["Manifest", ...] = ()

    @property
    def blobs(self) -> list[Blob]:
        """Configuration and layers, of this manifest alone."""
        return [*([self.config] if self.config else []), *(layer.blob for layer in self.layers)]


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest under a tag of a repository."""

    repository: str
    tag: str
    top: Manifest

    @property
    def host_manifest(self) -> Manifest:
        """The manifest that a client on this machine's architecture ends with."""
        return self.top.children[0] if self.top.children else self.top

    def manifests(self) -> Iterator[Manifest]:
        """Give children before those who name them: the order in which a registry takes them."""
        yield from self.top.children
        yield self.top


def layer_of(files: dict[str, bytes], *, compress: bool = True) -> Layer:
    """Pack `files` (by path; a path ending in `/` is a directory) as a layer.

    Owners, modes and times are fixed, and gzip's header bears no time, so equal files give
    equal digests. Everything is executable, which hurts nobody and lets a shell run.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(path.rstrip("/"))
            entry.mode = 0o755
            entry.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            entry.size = len(files[path])
            archive.addfile(entry, io.BytesIO(files[path]))
    plain = packed.getvalue()
    stored = gzip.compress(plain, 6, mtime=0) if compress else plain
    return Layer(Blob.of(stored), sha256_of(plain), compress)


def manifest_of(
    layers: list[Layer], form: Format = Format.OCI, architecture: str = HOST_ARCHITECTURE
) -> Manifest:
    """Make the manifest and configuration of an image of `layers`."""
    manifest_type, config_type, gzip_type, plain_type = form.value
    config = _blob_of_json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": _CREATED,
            "config": {"Cmd": ["/bin/busybox", "sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": _CREATED, "created_by": "tests"} for _ in layers],
        }
    )
    named = [
        descriptor(layer.blob, gzip_type if layer.is_gzipped else plain_type) for layer in layers
    ]
    body = _manifest_json(manifest_type, descriptor(config, config_type), named)
    return Manifest(_blob_of_json(body), manifest_type, config, tuple(layers))


def attestation_of(subject: Manifest) -> Manifest:
    """Make the kind of manifest that BuildKit adds to an image index for `subject`.

    Its platform is unknown/unknown and its one blob is an in-toto statement, not a layer.
    """
    manifest_type, config_type, *_ = Format.OCI.value
    subject_hex = subject.blob.digest.partition(":")[2]
    statement = _blob_of_json(
        {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://slsa.dev/provenance/v0.2",
            "subject": [{"name": "tests", "digest": {"sha256": subject_hex}}],
            "predicate": {},
        }
    )
    config = _blob_of_json(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [statement.digest]},
        }
    )
    named = [descriptor(statement, "application/vnd.in-toto+json")]
    body = _manifest_json(manifest_type, descriptor(config, config_type), named)
    layer = Layer(statement, statement.digest, is_gzipped=False)
    return Manifest(_blob_of_json(body), manifest_type, config, (layer,))


def index_of(host: Manifest, other: Manifest) -> Manifest:
    """Make an image index of two platforms with an attestation of the first, as BuildKit does."""
    attestation = attestation_of(host)
    manifests = [
        _platform_descriptor(host, HOST_ARCHITECTURE),
        _platform_descriptor(other, OTHER_ARCHITECTURE),
        _platform_descriptor(attestation, "unknown")
        | {
            "annotations": {
                "vnd.docker.reference.digest": host.blob.digest,
                "vnd.docker.reference.type": "attestation-manifest",
            }
        },
    ]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return Manifest(_blob_of_json(body), OCI_INDEX, children=(host, other, attestation))


def descriptor(blob: Blob, media_type: str) -> dict[str, object]:
    """Describe `blob` as a manifest does."""
    return {"mediaType": media_type, "digest": blob.digest, "size": len(blob.data)}


def _platform_descriptor(manifest: Manifest, architecture: str) -> dict[str, object]:
    system = "unknown" if architecture == "unknown" else "linux"
    platform_of = {"platform": {"architecture": architecture, "os": system}}
    return descriptor(manifest.blob, manifest.media_type) | platform_of


def _manifest_json(
    media_type: str, config: dict[str, object], layers: list[dict[str, object]]
) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}


def _blob_of_json(value: dict[str, object]) -> Blob:
    return Blob.of(json.dumps(value, indent=3).encode())
