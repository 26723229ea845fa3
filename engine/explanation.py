"""All that is known of one tag or digest, and what will become of it.

Invariant: it reads the index and the files, and changes nothing; it looks beside a running server
as well as at a stopped cache. It may take seconds: the plan of eviction is gone through.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from engine.blobdir import BlobDirectory, read_at
from engine.descriptor import Descriptor, find_named
from engine.errors import CacheError
from engine.fate import Fate, foretell_fate
from engine.freshness import Freshness, decide
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_records import TagRecord
from engine.index_views import BlobView, LinkView, TagView
from engine.layout import Layout
from engine.names import Digest, Tag
from engine.outlook import Outlook
from engine.settings import EngineSettings, UpstreamSettings
from engine.subject import DigestSubject, RepositorySubject, Subject, TagSubject, UpstreamSubject

_MAX_MANIFEST_BYTES = 8 * 1024 * 1024


class Inexplicable(ValueError):
    """What was asked for has no single digest."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(f"{subject} names neither a tag nor a digest: name one, {subject}:TAG")


class Unknown(CacheError):
    """Nothing is known of what was asked for."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(f"nothing is known here of {subject}")


@dataclass(frozen=True, slots=True)
class NamedContent:
    """What a manifest names, and whether it is here."""

    descriptor: Descriptor
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that was found out about a digest. `fate` None: it is not stored."""

    subject: Subject
    digest: Digest
    path: str
    blob: BlobView | None
    fate: Fate | None
    links: list[LinkView]
    tags: list[TagView]
    named: list[NamedContent]

    @property
    def kind(self) -> str:
        """What it is."""
        if self.blob is not None:
            return self.blob.kind
        return "manifest" if any(link.kind == "manifest" for link in self.links) else "blob"

    @property
    def media_types(self) -> list[str]:
        """What repositories say it is; there may be several."""
        return sorted({link.media_type for link in self.links if link.media_type})


async def explain(settings: EngineSettings, subject: TagSubject | DigestSubject) -> Explanation:
    """Find out all about `subject`; blocks the loop. Raises `Unknown` or `StorageError`."""
    layout = Layout(settings.data_directory)
    async with ReadOnlyConnections(layout.index_path) as connections:
        index = IndexInspection(connections)
        digest = await _resolve(index, subject)
        blob, links = await index.find_blob(digest), await index.list_links(digest)
        if blob is None and not links:
            raise Unknown(subject)
        fate = None
        if blob is not None:
            upstreams = [link.upstream for link in links]
            fate = await foretell_fate(Outlook(settings, connections), blob, upstreams)
        return Explanation(
            subject,
            digest,
            str(layout.blob_path(digest)),
            blob,
            fate,
            links,
            await index.list_meaning(digest),
            await _list_named(layout, index, digest, links),
        )


def require_explicable(subject: Subject) -> TagSubject | DigestSubject:
    """Refuse what has no single digest. Raises `Inexplicable`."""
    match subject:
        case TagSubject() | DigestSubject():
            return subject
        case RepositorySubject() | UpstreamSubject():
            raise Inexplicable(subject)


def is_fresh(view: TagView, upstreams: Iterable[UpstreamSettings], now: float) -> bool:
    """Whether a pull at `now` would be answered without asking upstream, by `tagttl`. Pure."""
    tagttl_s = next((each.tagttl_s for each in upstreams if each.namespace == view.upstream), 0.0)
    record = TagRecord(
        Tag(view.tag), view.digest, view.media_type, None, None, view.checked_at, view.changed_at
    )
    return decide(record, now, tagttl_s) is Freshness.FRESH


async def _resolve(index: IndexInspection, subject: TagSubject | DigestSubject) -> Digest:
    if isinstance(subject, DigestSubject):
        return subject.digest
    for view in await index.list_tags(subject.location):
        if view.tag == subject.tag:
            return view.digest
    raise Unknown(subject)


async def _list_named(
    layout: Layout, index: IndexInspection, digest: Digest, links: list[LinkView]
) -> list[NamedContent]:
    """List what a stored manifest names."""
    if all(link.kind != "manifest" for link in links):
        return []
    try:
        fd = BlobDirectory(layout).open_blob(digest)
    except FileNotFoundError:
        return []
    try:
        descriptors = find_named(read_at(fd, _MAX_MANIFEST_BYTES, 0))
    finally:
        os.close(fd)
    return [
        NamedContent(each, await index.find_blob(each.digest) is not None) for each in descriptors
    ]
