"""`inspect-index explain`: what is known of one tag or digest, and what will become of it."""

import asyncio
import os
import time
from dataclasses import dataclass

from engine.blobdir import BlobDirectory, read_at
from engine.descriptor import Descriptor, find_named
from engine.errors import CacheError
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_views import BlobView, LinkView, TagView
from engine.names import Digest
from engine.outlook import Outlook
from engine.subject import DigestSubject, RepositorySubject, Subject, TagSubject, UpstreamSubject
from tools.inspect_fate import Fate, foretell_fate
from tools.inspect_listing import is_fresh
from tools.options import Site
from tools.output import Column, Field, Kind, Listing, Report, Value

_MAX_MANIFEST_BYTES = 8 * 1024 * 1024

_LINK_COLUMNS = (
    Column("repository", "Repository"),
    Column("kind", "As"),
    Column("state", "Known by"),
    Column("media_type", "Media type"),
    Column("linked_at", "Since", Kind.TIME),
)
_TAG_COLUMNS = (
    Column("tag", "Tag"),
    Column("checked_at", "Checked", Kind.TIME),
    Column("changed_at", "Changed", Kind.TIME),
    Column("freshness", "A pull"),
)
_NAMED_COLUMNS = (
    Column("digest", "Digest"),
    Column("size_bytes", "Size", Kind.BYTES),
    Column("media_type", "Media type"),
    Column("is_stored", "Stored"),
)


class Unknown(CacheError):
    """Nothing is known of what was asked for."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(f"nothing is known here of {subject}")


@dataclass(frozen=True, slots=True)
class Known:
    """All that was found out about a digest."""

    digest: Digest
    blob: BlobView | None
    fate: Fate | None  # None where it is not stored
    links: list[LinkView]
    tags: list[TagView]
    named: list[tuple[Descriptor, bool]]  # whether it is stored


def explain(site: Site, subject: TagSubject | DigestSubject) -> Report:
    """Find out all about `subject`. Raises `Unknown`."""
    known = asyncio.run(_find_out(site, subject))
    return _report(site, subject, known, time.time())


async def _find_out(site: Site, subject: TagSubject | DigestSubject) -> Known:
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        index = IndexInspection(connections)
        digest = await _resolve(index, subject)
        blob, links = await index.find_blob(digest), await index.list_links(digest)
        if blob is None and not links:
            raise Unknown(subject)
        fate = None
        if blob is not None:
            upstreams = [link.upstream for link in links]
            fate = await foretell_fate(Outlook(site.settings, connections), blob, upstreams)
        return Known(
            digest,
            blob,
            fate,
            links,
            await index.list_meaning(digest),
            await _list_named(site, index, digest, links),
        )


async def _resolve(index: IndexInspection, subject: TagSubject | DigestSubject) -> Digest:
    if isinstance(subject, DigestSubject):
        return subject.digest
    for view in await index.list_tags(subject.location):
        if view.tag == subject.tag:
            return view.digest
    raise Unknown(subject)


async def _list_named(
    site: Site, index: IndexInspection, digest: Digest, links: list[LinkView]
) -> list[tuple[Descriptor, bool]]:
    """List what a stored manifest names."""
    if all(link.kind != "manifest" for link in links):
        return []
    try:
        fd = BlobDirectory(site.layout).open_blob(digest)
    except FileNotFoundError:
        return []
    try:
        descriptors = find_named(read_at(fd, _MAX_MANIFEST_BYTES, 0))
    finally:
        os.close(fd)
    return [(each, await index.find_blob(each.digest) is not None) for each in descriptors]


def _report(site: Site, subject: Subject, known: Known, now: float) -> Report:
    media_types = sorted({link.media_type for link in known.links if link.media_type})
    fields = [
        Field("subject", "Subject", str(subject)),
        Field("digest", "Digest", known.digest),
        Field("kind", "Kind", known.blob.kind if known.blob else _kind_of(known.links)),
        Field("media_type", "Media type", ", ".join(media_types) or None),
        Field("path", "Path", str(site.layout.blob_path(known.digest))),
        *_stored_fields(known.blob),
        *_fate_fields(known.fate),
    ]
    links: list[tuple[Value, ...]] = [
        (f"{each.upstream}/{each.repository}", each.kind, each.state, each.media_type or None,
         each.linked_at)
        for each in known.links
    ]  # fmt: skip
    tags: list[tuple[Value, ...]] = [
        (each.name, each.checked_at, each.changed_at, _describe_freshness(site, each, now))
        for each in known.tags
    ]
    named: list[tuple[Value, ...]] = [
        (each.digest, each.size_bytes, each.media_type, is_stored)
        for each, is_stored in known.named
    ]
    return Report(
        fields,
        [
            Listing("links", _LINK_COLUMNS, links),
            Listing("tags", _TAG_COLUMNS, tags),
            Listing("named", _NAMED_COLUMNS, named),
        ],
    )


def _kind_of(links: list[LinkView]) -> str:
    return "manifest" if any(link.kind == "manifest" for link in links) else "blob"


def _stored_fields(blob: BlobView | None) -> list[Field]:
    if blob is None:
        return [Field("is_stored", "Stored", value=False)]
    return [
        Field("is_stored", "Stored", value=True),
        Field("size_bytes", "Size", blob.size_bytes, Kind.BYTES),
        Field("is_public", "Fetched without credentials", blob.is_public),
        Field("stored_at", "Fetched", blob.stored_at, Kind.TIME),
        Field("used_at", "Last used", blob.used_at, Kind.TIME),
        Field("use_count", "Uses, in batches", blob.use_count, Kind.COUNT),
        Field("verified_at", "Verified", blob.verified_at, Kind.TIME),
    ]


def _fate_fields(fate: Fate | None) -> list[Field]:
    if fate is None:
        return []
    return [
        Field("fate", "What will become of it", fate.text),
        Field("expires_at", "Expires, if not used", fate.expires_at, Kind.TIME),
        Field("rank", "Rank among the next to go", fate.rank, Kind.COUNT),
        Field("needed_bytes", "Goes after so much more", fate.needed_bytes, Kind.BYTES),
        Field("pins", "Pinned by", ", ".join(fate.pins) or None),
    ]


def _describe_freshness(site: Site, view: TagView, now: float) -> str:
    if is_fresh(view, site.settings.upstreams, now):
        return "is answered without asking upstream"
    return "asks upstream first"


def require_explicable(subject: Subject) -> TagSubject | DigestSubject:
    """Refuse what has no single digest. Raises ValueError."""
    match subject:
        case TagSubject() | DigestSubject():
            return subject
        case RepositorySubject() | UpstreamSubject():
            raise ValueError(
                f"{subject} names neither a tag nor a digest: {subject}:TAG, or "
                "inspect-index tags, which lists them"
            )
