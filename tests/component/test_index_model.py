"""The index behaves like dictionaries, whatever is done to it in whatever order."""

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.descriptor import Descriptor
from engine.hot import Kind
from engine.index import Index
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord, Usage
from engine.names import Digest, Location, Tag
from tests.component.index_examples import ELSEWHERE, HERE, digest_of

DIGESTS = st.integers(0, 3).map(digest_of)
LOCATIONS = st.sampled_from([HERE, ELSEWHERE])
TAGS = st.sampled_from([Tag("a"), Tag("b")])
KINDS = st.sampled_from(Kind)
TIMES = st.floats(0, 1e10)
SIZES = st.integers(0, 2**63 - 1)
MAYBE_SIZES = st.none() | SIZES
# All that is Unicode, and nothing that is not: surrogates cannot be stored.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
BLOBS = st.builds(
    BlobRecord,
    DIGESTS,
    st.integers(0, 2**40),
    st.none() | st.binary(min_size=16, max_size=16),
    st.booleans(),
    TIMES,
    TIMES,
    st.integers(0, 2**40),
)
NAMED = st.builds(Descriptor, DIGESTS, SIZES, TEXTS, st.booleans())
TAG_RECORDS = st.builds(
    TagRecord, TAGS, DIGESTS, TEXTS, MAYBE_SIZES, st.none() | TEXTS, TIMES, TIMES
)


def link_to(digest: Digest, kind: Kind, media_type: str, size_bytes: int | None) -> LinkRecord:
    return LinkRecord(
        digest, kind, LinkState.HELD, media_type if kind is Kind.MANIFEST else "", size_bytes
    )


def link_named(named: Descriptor) -> LinkRecord:
    kind = Kind.MANIFEST if named.is_manifest else Kind.BLOB
    found = link_to(named.digest, kind, named.media_type, named.size_bytes)
    return replace(found, state=LinkState.NAMED)


def may_follow(record: TagRecord, asked_at: float) -> bool:
    """Upstream's later word counts; what is said to be of the future is none."""
    return asked_at >= record.checked_at or record.checked_at > time.time() + 1


def merge_link(old: LinkRecord | None, new: LinkRecord) -> LinkRecord:
    if old is None:
        return new
    if old.state is LinkState.HELD and new.state is LinkState.NAMED:
        return old
    return LinkRecord(
        new.digest,
        Kind.MANIFEST if Kind.MANIFEST in (old.kind, new.kind) else Kind.BLOB,
        new.state,
        new.media_type or old.media_type,
        old.size_bytes if new.size_bytes is None else new.size_bytes,
    )


def merge_blob(old: BlobRecord | None, new: BlobRecord) -> BlobRecord:
    if old is None:
        return new
    return replace(
        new,
        xxh3=new.xxh3 or old.xxh3,
        is_public=old.is_public or new.is_public,
        used_at=max(old.used_at, new.used_at),
        use_count=old.use_count,
    )


class IndexMachine(RuleBasedStateMachine):
    """Does the same to an index and to dictionaries, and compares them after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name, "index.sqlite3")
        self.runner = asyncio.Runner()
        self.index = self.runner.run(Index.open(self.path))
        self.blobs: dict[Digest, BlobRecord] = {}
        self.links: dict[tuple[Location, Digest], LinkRecord] = {}
        self.tags: dict[tuple[Location, Tag], TagRecord] = {}

    def teardown(self) -> None:
        self.runner.run(self.index.aclose())
        self.runner.close()
        self.directory.cleanup()

    def put_blob(self, blob: BlobRecord) -> None:
        self.blobs[blob.digest] = merge_blob(self.blobs.get(blob.digest), blob)

    def put_link(self, location: Location, link: LinkRecord) -> None:
        key = (location, link.digest)
        self.links[key] = merge_link(self.links.get(key), link)

    def put_tag(self, location: Location, tag: TagRecord) -> None:
        old = self.tags.get((location, tag.tag))
        if old is not None and not may_follow(old, tag.checked_at):
            return
        if old is not None and old.digest == tag.digest:
            tag = replace(tag, changed_at=old.changed_at)
        self.tags[location, tag.tag] = tag

    @rule(location=LOCATIONS, blob=BLOBS)
    def commit_blob(self, location: Location, blob: BlobRecord) -> None:
        link = link_to(blob.digest, Kind.BLOB, "", blob.size_bytes)
        self.runner.run(self.index.commit_blob(location, blob, link))
        self.put_blob(blob)
        self.put_link(location, link)

    @rule(
        location=LOCATIONS,
        blob=BLOBS,
        media_type=TEXTS,
        named=st.lists(NAMED, max_size=3),
        tag=st.none() | TAG_RECORDS,
    )
    def commit_manifest(
        self,
        location: Location,
        blob: BlobRecord,
        media_type: str,
        named: list[Descriptor],
        tag: TagRecord | None,
    ) -> None:
        link = link_to(blob.digest, Kind.MANIFEST, media_type, blob.size_bytes)
        self.runner.run(self.index.commit_manifest(location, blob, link, named, tag))
        self.put_blob(blob)
        for each in [link, *map(link_named, named)]:
            self.put_link(location, each)
        if tag is not None:
            self.put_tag(location, tag)

    @rule(location=LOCATIONS, digest=DIGESTS, kind=KINDS, media_type=TEXTS, size=MAYBE_SIZES)
    def hold(
        self, location: Location, digest: Digest, kind: Kind, media_type: str, size: int | None
    ) -> None:
        link = link_to(digest, kind, media_type, size)
        self.runner.run(self.index.hold(location, digest, kind, link.media_type, size))
        self.put_link(location, link)

    @rule(location=LOCATIONS, record=TAG_RECORDS)
    def record_tag(self, location: Location, record: TagRecord) -> None:
        self.runner.run(self.index.record_tag(location, record))
        self.put_tag(location, record)

    @rule(location=LOCATIONS, tag=TAGS, asked_at=TIMES)
    def drop_tag(self, location: Location, tag: Tag, asked_at: float) -> None:
        self.runner.run(self.index.drop_tag(location, tag, asked_at))
        old = self.tags.get((location, tag))
        if old is not None and may_follow(old, asked_at):
            del self.tags[location, tag]

    @rule(digest=DIGESTS)
    def forget_blob(self, digest: Digest) -> None:
        self.runner.run(self.index.forget_blob(digest))
        self.blobs.pop(digest, None)

    @rule(used_at=st.dictionaries(DIGESTS, TIMES))
    def record_uses(self, used_at: dict[Digest, float]) -> None:
        self.runner.run(self.index.record_uses(used_at))
        for digest in used_at.keys() & self.blobs.keys():
            old = self.blobs[digest]
            newest = max(old.used_at, used_at[digest])
            self.blobs[digest] = replace(old, used_at=newest, use_count=old.use_count + 1)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.index.aclose())
        self.index = self.runner.run(Index.open(self.path))
        for digest, blob in self.blobs.items():
            # Verified by what counts as another run of the program.
            self.blobs[digest] = replace(blob, is_trusted=False)

    @invariant()
    def knows_what_the_dictionaries_know(self) -> None:
        self.runner.run(self.compare())

    async def compare(self) -> None:
        for location in (HERE, ELSEWHERE):
            for digest in map(digest_of, range(4)):
                expected = self.links.get((location, digest)), self.blobs.get(digest)
                assert await self.index.find(location, digest) == expected
            for tag in (Tag("a"), Tag("b")):
                record = self.tags.get((location, tag))
                assert await self.index.find_tag(location, tag) == record
            known = sorted(tag for where, tag in self.tags if where == location)
            assert await self.index.list_tags(location) == known
        stored = [blob.size_bytes for blob in self.blobs.values()]
        assert await self.index.usage() == Usage(len(stored), sum(stored))


TestIndex = IndexMachine.TestCase
# Each example opens a database and each step reads all of it: fewer examples, and no deadline.
TestIndex.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
