"""Blobs: stored, being filled, or to be filled; one fill per digest however many ask.

Invariant: a fill is started or joined without an await between the check and the act. A client of
one repository joins another's fill only where it may be served the blob. A fill that is not stored
and whose beginning is gone is joined by nobody: who comes then starts the next one.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from engine.errors import BlobUnknown, NotFound, StorageError, UpstreamUnavailable
from engine.fault_log import RepeatedLines
from engine.fill import Fill, Outcome
from engine.fill_tally import FillTally
from engine.hot import Content, Kind
from engine.index_records import BlobRecord, LinkRecord, LinkState
from engine.lead import Lead, Patience
from engine.live_views import FillView
from engine.lookup import BlobHead, BlobLookup, CacheStatus
from engine.names import Digest, Location
from engine.negative import NegativeCache
from engine.partial import Partial
from engine.reader import Reader
from engine.single_flight import SingleFlight
from engine.store import Store, may_serve
from engine.upstream.api import Upstream
from engine.windows import Windows

log = logging.getLogger(__name__)

HEAD_DEADLINE_S = 10.0
# Ranges far past a fill's frontier; each holds an upstream connection and is not stored.
MAX_SIDE_FETCHES = 8


@dataclass(slots=True, eq=False)
class _Running:
    """A fill under way, for whom it is made, and the task that leads it."""

    fill: Fill
    location: Location
    is_public: bool
    begun_at: float  # unix seconds
    task: asyncio.Task[None] | None = None


class Blobs:
    """All blobs of all upstreams."""

    def __init__(
        self,
        store: Store,
        upstreams: dict[str, Upstream],
        negative: NegativeCache,
        patience: Patience,
    ) -> None:
        self._store = store
        self._upstreams = upstreams
        self._negative = negative
        self._patience = patience
        self._running: dict[Digest, _Running] = {}  # the latest of each digest
        self._leads: set[_Running] = set()  # all of them
        self.tally = FillTally()
        self._windows = Windows()
        self._warnings = RepeatedLines(log)
        self._heads: SingleFlight[tuple[Location, Digest], int | None] = SingleFlight()
        self._side_fetches = asyncio.Semaphore(MAX_SIDE_FETCHES)

    async def get(self, location: Location, digest: Digest) -> BlobLookup:
        """Find a blob, or read its fill, or start one."""
        return await self._get(location, digest, is_confirmed=False)

    async def _get(self, location: Location, digest: Digest, *, is_confirmed: bool) -> BlobLookup:
        """Do what `get` says. `is_confirmed`: upstream has just said that `location` has it."""
        running = self._find_joinable(digest)
        if running is not None and (is_confirmed or running.location == location):
            return self._join(running, location)
        ended_count = self.tally.ended.total()
        known = await self._store.find(Kind.BLOB, location, digest)
        if is_confirmed and known.blob is not None:
            content = self._store.admit(Kind.BLOB, location, known.blob, "")
            return self._serve(CacheStatus.REVALIDATED, content, known.blob)
        permitted = self._store.find_permitted(Kind.BLOB, location, known)
        if permitted is not None:
            return self._serve(CacheStatus.HIT, permitted, known.blob)
        self._raise_if_absent(location, digest)
        running = self._find_joinable(digest)
        must_ask = known.blob is not None or (
            running is not None and not _may_join(running, location, known.link)
        )
        if must_ask and not is_confirmed:
            await self._ask_head(location, digest)
            return await self._get(location, digest, is_confirmed=True)
        if running is not None:
            return self._join(running, location)
        if ended_count != self.tally.ended.total():
            # A fill ended while the index was read: it may have been this blob's.
            return await self._get(location, digest, is_confirmed=is_confirmed)
        return self._start(location, digest, known.link)

    async def head(self, location: Location, digest: Digest) -> BlobHead:
        """Tell a blob's size: it is stored, a manifest names it, or upstream says it."""
        known = await self._store.find(Kind.BLOB, location, digest)
        content = self._store.find_permitted(Kind.BLOB, location, known)
        if content is not None:
            return BlobHead(CacheStatus.HIT, content.size_bytes, content.stored_at)
        self._raise_if_absent(location, digest)
        if known.blob is None and known.link is not None and known.link.size_bytes is not None:
            size_bytes = self._find_claimed_size(location, digest, known.link)
            return BlobHead(CacheStatus.HIT, size_bytes or known.link.size_bytes)
        size_bytes = await self._ask_head(location, digest)
        if known.blob is not None:
            content = self._store.admit(Kind.BLOB, location, known.blob, "")
            return BlobHead(CacheStatus.REVALIDATED, content.size_bytes, content.stored_at)
        return BlobHead(CacheStatus.MISS, size_bytes)

    async def iter_range(
        self, location: Location, digest: Digest, start: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        """Fetch bytes `start` up to without `end` from upstream, unverified and not stored.

        Where the blob is here and being compared, they are those of its file.

        The caller must hold back the blob's end until its fill is verified.
        """
        stored = self._store.custody.trust.find_range(digest, start, end)
        if stored is not None:
            async with aclosing(stored) as pieces:
                async for piece in pieces:
                    yield piece
            return
        async with (
            self._side_fetches,
            aclosing(self._fetch(location, digest, start, end)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def list_fills(self) -> list[FillView]:
        """All fills under way, the oldest first."""
        running = sorted(self._leads, key=lambda each: each.begun_at)
        return [
            FillView(
                each.fill.digest,
                each.location,
                each.fill.size_bytes,
                each.fill.written_bytes,
                each.fill.reader_count,
                each.begun_at,
                is_stored=each.fill.window is None,
            )
            for each in running
        ]

    async def settle(self, digest: Digest) -> None:
        """Wait until no fill of `digest` is under way: what it brought is committed then."""
        while (running := self._running.get(digest)) is not None and running.task is not None:
            await asyncio.wait({running.task})

    async def aclose(self) -> None:
        """Give up fills under way, but let verified ones be committed."""
        tasks = [running.task for running in self._leads if running.task]
        for running in self._leads:
            if running.task is not None and running.fill.outcome is None:
                running.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for running in self._leads:
            # Its task was cancelled before its first step.
            running.fill.end(Outcome.DANGLING, UpstreamUnavailable("the mirror is stopping"))
        await self._heads.aclose()

    def _serve(self, status: CacheStatus, content: Content, blob: BlobRecord | None) -> BlobLookup:
        """Give what is stored, compared while it is read where this run has not verified it yet."""
        if blob is None or blob.is_trusted:
            return BlobLookup(status, content=content)
        reader = self._store.custody.trust.read(blob)
        return BlobLookup(status, reader=reader, stored_at=blob.stored_at)

    def _raise_if_absent(self, location: Location, digest: Digest) -> None:
        if self._negative.holds((Kind.BLOB, location, digest), time.time()):
            raise BlobUnknown(f"{location.upstream} said a moment ago that {digest} is unknown")

    async def _ask_head(self, location: Location, digest: Digest) -> int | None:
        """Ask upstream whether `location` has the blob, and record it; its size if it says."""
        size_bytes, _ = await self._heads.run(
            (location, digest), lambda: self._head_upstream(location, digest)
        )
        return size_bytes

    async def _head_upstream(self, location: Location, digest: Digest) -> int | None:
        upstream = self._upstreams[location.upstream]
        try:
            size_bytes = await upstream.head_blob(
                location.repository, digest, deadline=_deadline(HEAD_DEADLINE_S)
            )
        except NotFound:
            self._note_absent(location, digest)
            raise
        link = LinkRecord(digest, Kind.BLOB, LinkState.HELD, "", size_bytes)
        await self._store.hold(location, link)
        return size_bytes

    def _note_absent(self, location: Location, digest: Digest) -> None:
        until = time.time() + self._upstreams[location.upstream].settings.negativettl_s
        self._negative.note((Kind.BLOB, location, digest), until)

    def _find_joinable(self, digest: Digest) -> _Running | None:
        running = self._running.get(digest)
        return running if running is not None and running.fill.is_joinable else None

    def _find_claimed_size(
        self, location: Location, digest: Digest, link: LinkRecord
    ) -> int | None:
        """Find the size that upstream has told a fill: a manifest that names one may be wrong."""
        running = self._find_joinable(digest)
        if running is None or not running.fill.is_open or not _may_join(running, location, link):
            return None
        return running.fill.size_bytes

    def _join(self, running: _Running, location: Location) -> BlobLookup:
        return BlobLookup(CacheStatus.COLLAPSED, reader=self._read(running.fill, location))

    def _read(self, fill: Fill, location: Location) -> Reader:
        return Reader(fill, partial(self._fetch, location, fill.digest))

    async def _fetch(
        self, location: Location, digest: Digest, start: int, end: int
    ) -> AsyncGenerator[bytes, None]:
        upstream = self._upstreams[location.upstream]
        stream = await upstream.open_blob(
            location.repository,
            digest,
            start=start,
            end=end,
            deadline=_deadline(self._patience.first_byte_s),
        )
        try:
            async for piece in stream:
                yield piece
        finally:
            await stream.aclose()

    def _start(self, location: Location, digest: Digest, link: LinkRecord | None) -> BlobLookup:
        fill = Fill(digest, link.size_bytes if link else None, self._windows)
        is_public = not self._upstreams[location.upstream].settings.has_credentials
        running = self._running[digest] = _Running(fill, location, is_public, time.time())
        self._leads.add(running)
        running.task = asyncio.create_task(self._lead(running), name=f"fill {digest}")
        return BlobLookup(CacheStatus.MISS, reader=self._read(fill, location))

    async def _lead(self, running: _Running) -> None:
        """Own a fill from its start until its blob is committed."""
        fill, location, store = running.fill, running.location, self._store
        upstream = self._upstreams[location.upstream]
        hands = store.hands
        file = Partial(fill, store.blob_directory, store.room, store.leftovers, hands)
        lead = Lead(fill, upstream, location.repository, file, hands, self._patience)
        try:
            outcome = await lead.run()
            if outcome is Outcome.DONE:
                await self._commit(running, file, lead.xxh3)
            elif outcome is Outcome.NOT_FOUND:
                self._note_absent(location, fill.digest)
            elif outcome is not Outcome.DANGLING:
                self._warnings.warn(
                    (location.upstream, type(fill.error)),
                    "fill failed location=%s digest=%s outcome=%s cause=%s",
                    location, fill.digest, outcome.name.lower(), fill.error,
                )  # fmt: skip
        finally:
            self._leads.discard(running)
            self.tally.note(fill)
            if self._running.get(fill.digest) is running:
                del self._running[fill.digest]
            fill.leave()

    async def _commit(self, running: _Running, file: Partial, xxh3: bytes) -> None:
        fill, now = running.fill, time.time()
        if fill.window is not None:
            return
        blob = BlobRecord(fill.digest, fill.written_bytes, xxh3, running.is_public, now, now, 1)
        try:
            await self._store.commit_blob(running.location, blob, fill.body)
        except StorageError as exc:
            file.give_up(exc)
        else:
            file.settle()


def _may_join(running: _Running, location: Location, link: LinkRecord | None) -> bool:
    return running.location == location or may_serve(Kind.BLOB, link, is_public=running.is_public)


def _deadline(patience_s: float) -> float:
    return asyncio.get_running_loop().time() + patience_s
