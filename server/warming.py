"""Images fetched before anybody asks: the manifests of a reference, then all that they name.

Invariant: no byte of it is sent to anybody; what is here already is found and not fetched again,
so a warm that was broken off goes on where it stopped. At most `MAX_BLOBS` blobs at a time are
fetched for all warms together, so clients find connections to upstream.
A warm that is cancelled leaves its fills running: what was begun is kept.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from engine.cache import Cache
from engine.descriptor import find_named
from engine.errors import CacheError, InvalidName
from engine.hot import Content
from engine.lookup import CacheStatus
from engine.names import Digest, Location, Reference, Tag
from engine.platforms import Platform, choose_manifests, own_platform, parse_platform
from engine.settings import UpstreamSettings
from engine.subject import DigestSubject, RepositorySubject, TagSubject, parse_subject
from server.control_messages import Warm, Warming

MAX_BLOBS = 6
INTERVAL_S = 0.5
# An image index may name image indexes, and they further ones; real ones do not. No image has a
# hundredth of so many pieces.
_MAX_DEPTH = 4
_MAX_PIECES = 10_000
_MAX_CAUSES = 5


class NotKept(CacheError):
    """It was fetched, or could be, but does not stay here."""


class TooMany(CacheError):
    """A reference names more than anybody can mean."""

    def __init__(self) -> None:
        super().__init__(f"it names more than {_MAX_PIECES} pieces of content")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be warmed. `platforms` empty: all."""

    ref: str
    location: Location
    reference: Reference
    platforms: list[Platform]


@dataclass(slots=True)
class _Job:
    """How far a warm is. `sizes` has each blob that manifests name."""

    ref: str
    manifests: set[Digest] = field(default_factory=set)
    sizes: dict[Digest, int] = field(default_factory=dict)
    hits: set[Digest] = field(default_factory=set)
    done: set[Digest] = field(default_factory=set)
    causes: list[str] = field(default_factory=list)


def parse_order(command: Warm, upstreams: Sequence[UpstreamSettings]) -> Order:
    """Read a command. A repository alone means its tag `latest`, as with docker.

    Raises `InvalidName`, or ValueError for a platform.
    """
    subject = parse_subject(command.ref, upstreams)
    wanted: Reference
    match subject:
        case TagSubject(location, tag):
            wanted = tag
        case RepositorySubject(location):
            wanted = Tag("latest")
        case DigestSubject(digest, Location() as location):
            wanted = digest
        case _:
            raise InvalidName(command.ref, "a repository with a tag or digest")
    if location.upstream not in {each.namespace for each in upstreams}:
        raise InvalidName(command.ref, "a repository of an upstream that is configured")
    platforms = [parse_platform(text) for text in command.platforms] or [own_platform()]
    return Order(command.ref, location, wanted, [] if command.is_for_all else platforms)


def summarize(causes: Sequence[str]) -> str:
    """Write causes on one line, the first ones of many. Pure."""
    rest_count = len(causes) - _MAX_CAUSES
    more = [f"and {rest_count} more"] if rest_count > 0 else []
    return "; ".join([*causes[:_MAX_CAUSES], *more])


class Warmer:
    """Warms images, several at a time."""

    def __init__(self, cache: Cache, upstreams: Sequence[UpstreamSettings]) -> None:
        self._cache = cache
        self._upstreams = upstreams
        self._slots = asyncio.Semaphore(MAX_BLOBS)

    async def warm(self, command: Warm) -> AsyncGenerator[Warming, None]:
        """Warm one reference; tell how far it is now and then, and how it ended. Close it."""
        try:
            order = parse_order(command, self._upstreams)
        except (InvalidName, ValueError) as exc:
            yield Warming(command.ref, "failed", cause=str(exc))
            return
        job = _Job(command.ref)
        work = asyncio.create_task(self._work(order, job), name=f"warm {order.ref}")
        try:
            while not (await asyncio.wait({work}, timeout=INTERVAL_S))[0]:
                yield self._describe(job, "running")
            work.result()
            yield self._describe(job, "failed" if job.causes else "done")
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    def _describe(self, job: _Job, state: str) -> Warming:
        under_way = {fill.digest: fill.written_bytes for fill in self._cache.look().fills}
        finished_bytes = sum(job.sizes[digest] for digest in job.done)
        filled_bytes = sum(
            min(under_way.get(digest, 0), size_bytes)
            for digest, size_bytes in job.sizes.items()
            if digest not in job.done
        )
        return Warming(
            job.ref,
            state,
            len(job.sizes),
            len(job.done),
            sum(job.sizes.values()),
            finished_bytes + filled_bytes,
            sum(job.sizes[digest] for digest in job.hits),
            summarize(job.causes),
        )

    async def _work(self, order: Order, job: _Job) -> None:
        try:
            await self._find_blobs(order, order.reference, job, _MAX_DEPTH)
        except CacheError as exc:
            job.causes.append(str(exc))
        async with asyncio.TaskGroup() as group:
            for digest in job.sizes:
                group.create_task(self._warm_blob(order.location, digest, job))

    async def _find_blobs(self, order: Order, reference: Reference, job: _Job, depth: int) -> None:
        """Fetch a manifest and those below it; note the blobs that they name."""
        found = await self._cache.get_manifest(order.location, reference)
        if found.content is None or found.status is CacheStatus.BYPASS:
            raise NotKept("there is no room to store it, or the disk fails")
        body = await self._read(found.content)
        job.manifests.add(found.digest)
        for each in find_named(body):
            if not each.is_manifest:
                job.sizes[each.digest] = each.size_bytes
        if len(job.manifests) + len(job.sizes) > _MAX_PIECES:
            raise TooMany
        for digest in choose_manifests(body, order.platforms) if depth else ():
            if digest not in job.manifests:
                await self._find_blobs(order, digest, job, depth - 1)

    async def _read(self, content: Content) -> bytes:
        # What the cache keeps open is the loop's alone; a thread gets a number to read from.
        body = self._cache.load_body(content)
        if body is not None:
            return body
        file = self._cache.open_file(content)
        try:
            return await asyncio.to_thread(os.pread, file.fd, content.size_bytes, 0)
        finally:
            file.release()

    async def _warm_blob(self, location: Location, digest: Digest, job: _Job) -> None:
        try:
            async with self._slots:
                is_hit = await self._fetch(location, digest)
        except CacheError as exc:
            job.causes.append(f"{digest}: {exc}")
            return
        job.done.add(digest)
        if is_hit:
            job.hits.add(digest)

    async def _fetch(self, location: Location, digest: Digest) -> bool:
        """See that a blob is stored; return whether it was before."""
        lookup = await self._cache.get_blob(location, digest)
        if lookup.reader is None:
            return True
        try:
            # What is stored, and compared while it is read, need not be read for that.
            if lookup.stored_at is not None:
                return True
            is_kept = await lookup.reader.wait_kept()
        finally:
            lookup.reader.close()
        await self._cache.settle(digest)
        if not is_kept or (await self._cache.head_blob(location, digest)).stored_at is None:
            raise NotKept("there is no room to store it, or the disk fails")
        return False
