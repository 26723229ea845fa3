"""Records of made-up content, told apart by a number."""

import hashlib

from engine.hot import Kind
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord
from engine.names import Digest, Location, Repository, Tag

HERE = Location("docker.io", Repository("library/busybox"))
ELSEWHERE = Location("ghcr.io", Repository("library/busybox"))
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest_of(number: int) -> Digest:
    return Digest.parse("sha256:" + hashlib.sha256(str(number).encode()).hexdigest())


def blob_of(number: int, *, is_public: bool = False, now: float = 1_000.0) -> BlobRecord:
    return BlobRecord(
        digest_of(number), 10 + number, bytes([number % 256]) * 16, is_public, now, now
    )


def link_of(number: int, state: LinkState = LinkState.HELD) -> LinkRecord:
    return LinkRecord(digest_of(number), Kind.BLOB, state, "", 10 + number)


def manifest_link_of(number: int, state: LinkState = LinkState.HELD) -> LinkRecord:
    return LinkRecord(digest_of(number), Kind.MANIFEST, state, MANIFEST_TYPE, 10 + number)


def tag_of(number: int, tag: str = "1.35", *, now: float = 1_000.0) -> TagRecord:
    return TagRecord(
        Tag.parse(tag), digest_of(number), MANIFEST_TYPE, 10 + number, f'"{number}"', now, now
    )
