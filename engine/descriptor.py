"""Descriptors, and the ones that a manifest names.

Manifests are never rewritten and their types never judged: what is not understood names nothing.
Source: OCI image-spec manifest.md, image-index.md; Docker "Image Manifest Version 2, Schema 2".
"""

from dataclasses import dataclass

import msgspec

from engine.errors import InvalidDigest
from engine.json_text import MalformedJSON, decode_json
from engine.names import Digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_TYPES = (
    OCI_MANIFEST,
    OCI_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
# What an offset in a file, and a number in the index, can hold.
MAX_SIZE_BYTES = 2**63 - 1
# Far more than any real image has; bounds the rows that one manifest can make.
MAX_NAMED = 10_000


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of one piece of content. `is_manifest`: an image index names it."""

    digest: Digest
    size_bytes: int
    media_type: str
    is_manifest: bool


class _RawDescriptor(msgspec.Struct):
    digest: str
    size: int = -1
    mediaType: str = ""
    urls: list[str] | None = None


class _RawManifest(msgspec.Struct):
    mediaType: str = ""
    config: _RawDescriptor | None = None
    layers: list[_RawDescriptor] = []
    manifests: list[_RawDescriptor] = []
    blobs: list[_RawDescriptor] = []


def find_named(manifest: bytes) -> list[Descriptor]:
    """List the descriptors that `manifest` names, each digest once, without foreign layers.

    Content that is not a manifest we understand, or holds bad digests, names nothing: it is still
    served byte for byte. Descriptors with `urls` are fetched by clients from elsewhere.
    """
    try:
        raw = decode_json(manifest, _RawManifest)
    except MalformedJSON:
        return []
    named: dict[Digest, Descriptor] = {}
    blobs = [*([raw.config] if raw.config else []), *raw.layers, *raw.blobs]
    for found, is_manifest in [(d, False) for d in blobs] + [(d, True) for d in raw.manifests]:
        if found.urls or not 0 <= found.size <= MAX_SIZE_BYTES or len(named) >= MAX_NAMED:
            continue
        try:
            digest = Digest.parse(found.digest)
        except InvalidDigest:
            continue
        named.setdefault(digest, Descriptor(digest, found.size, found.mediaType, is_manifest))
    return list(named.values())


def is_json_object(body: bytes) -> bool:
    """Whether `body` could be a manifest at all, as far as form goes."""
    try:
        decode_json(body, dict[str, msgspec.Raw])
    except MalformedJSON:
        return False
    return True


def guess_media_type(manifest: bytes) -> str:
    """Tell a manifest's type from itself: as it states it, or by what it holds.

    `application/octet-stream` where it cannot be told. For upstreams that forget the header.
    """
    try:
        raw = decode_json(manifest, _RawManifest)
    except MalformedJSON:
        return "application/octet-stream"
    if raw.mediaType:
        return raw.mediaType
    if raw.manifests:
        return OCI_INDEX
    return OCI_MANIFEST if raw.config else "application/octet-stream"
