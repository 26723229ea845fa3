"""`inspect-index explain`: what is known of one tag or digest, and what will become of it."""

import asyncio
import time

from engine.explanation import Explanation, explain, is_fresh
from engine.fate import Fate
from engine.index_views import BlobView, TagView
from engine.subject import DigestSubject, TagSubject
from server.explained import describe_pull
from tools.options import Site
from tools.output import Column, Field, Kind, Listing, Report, Value

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


def describe(site: Site, subject: TagSubject | DigestSubject) -> Report:
    """Find out all about `subject`. Raises `Unknown`."""
    return _report(site, asyncio.run(explain(site.settings, subject)), time.time())


def _report(site: Site, known: Explanation, now: float) -> Report:
    fields = [
        Field("subject", "Subject", str(known.subject)),
        Field("digest", "Digest", known.digest),
        Field("kind", "Kind", known.kind),
        Field("media_type", "Media type", ", ".join(known.media_types) or None),
        Field("path", "Path", known.path),
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
        (
            each.descriptor.digest,
            each.descriptor.size_bytes,
            each.descriptor.media_type,
            each.is_stored,
        )
        for each in known.named
    ]
    return Report(
        fields,
        [
            Listing("links", _LINK_COLUMNS, links),
            Listing("tags", _TAG_COLUMNS, tags),
            Listing("named", _NAMED_COLUMNS, named),
        ],
    )


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
    return describe_pull(is_fresh=is_fresh(view, site.settings.upstreams, now))
