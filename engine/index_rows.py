"""Records to rows and back, as `engine/index.py` stores them.

Pure. Invariant: what `…_row` makes, `…_record` reads back equal. A row is SQL's named parameters.
"""

from collections.abc import Mapping

from engine.descriptor import Descriptor
from engine.hot import Kind
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord
from engine.names import Digest, Location

Row = Mapping[str, str | bytes | int | float | None]


def location_row(location: Location) -> Row:
    """Name a repository, by `:upstream` and `:repository`."""
    return {"upstream": location.upstream, "repository": location.repository}


def blob_row(blob: BlobRecord) -> Row:
    """Make the row of a blob that is valid."""
    return {
        "digest": blob.digest,
        "size_bytes": blob.size_bytes,
        "xxh3": blob.xxh3,
        "is_public": blob.is_public,
        "stored_at": blob.stored_at,
        "used_at": blob.used_at,
        "use_count": blob.use_count,
    }


def link_row(location: Location, link: LinkRecord) -> Row:
    """Make the row of a link of `location`."""
    return {
        **location_row(location),
        "digest": link.digest,
        "kind": link.kind.name.lower(),
        "state": link.state.value,
        "media_type": link.media_type,
        "size_bytes": link.size_bytes,
    }


def tag_row(location: Location, record: TagRecord) -> Row:
    """Make the row of a tag of `location`."""
    return {
        **location_row(location),
        "tag": record.tag,
        "digest": record.digest,
        "media_type": record.media_type,
        "size_bytes": record.size_bytes,
        "etag": record.etag,
        "checked_at": record.checked_at,
        "changed_at": record.changed_at,
    }


def named_link(named: Descriptor) -> LinkRecord:
    """Make the link that a manifest's descriptor stands for."""
    kind = Kind.MANIFEST if named.is_manifest else Kind.BLOB
    media_type = named.media_type if named.is_manifest else ""
    return LinkRecord(named.digest, kind, LinkState.NAMED, media_type, named.size_bytes)


def link_record(
    digest: Digest, kind: str | None, state: str, media_type: str, size_bytes: int | None
) -> LinkRecord | None:
    """Read a link; None where all columns are NULL."""
    if kind is None:
        return None
    return LinkRecord(digest, Kind[kind.upper()], LinkState(state), media_type, size_bytes)


def blob_record(
    digest: Digest,
    size_bytes: int | None,
    xxh3: bytes | None,
    is_public: int,
    is_trusted: int,
    *times_and_count: float,
) -> BlobRecord | None:
    """Read a blob (`stored_at`, `used_at`, `use_count` last); None where all columns are NULL."""
    if size_bytes is None:
        return None
    stored_at, used_at, use_count = times_and_count
    return BlobRecord(
        digest,
        size_bytes,
        xxh3,
        bool(is_public),
        stored_at,
        used_at,
        int(use_count),
        is_trusted=bool(is_trusted),
    )
