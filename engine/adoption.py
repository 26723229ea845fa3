"""The storage of an official registry in proxy mode made ours, while no server runs.

Invariant: a blob's row is written after its verified file is in place, and a tag after its
manifest, so an adoption that ends anywhere leaves a sound cache, and the next one goes on from
there. What the registry served to a repository is *held* for that repository alone and not public:
nobody knows with which credentials it was fetched. What is here already is left as it is.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator

from engine.adoption_intake import Intake, Mode, SourceUnreadable
from engine.adoption_plan import Adopted, Allowance, Job, plan_jobs
from engine.adoption_survey import Fault, Finding, FoundTag, Survey
from engine.blobdir import BlobDirectory, read_at
from engine.descriptor import find_named, guess_media_type
from engine.errors import DigestMismatch
from engine.hot import Kind
from engine.index import Index
from engine.index_records import BlobRecord, LinkRecord, LinkState, TagRecord
from engine.names import Digest, Location
from engine.reconcile import presume_use

# Writes of so many that wait together are committed together.
_WORKERS = 16
# distribution refuses larger ones; what is larger was not stored as a manifest.
_MAX_MANIFEST_BYTES = 8 * 1024 * 1024


class Adoption:
    """One adoption of what `survey` found. `tell` is given each finding at once.

    With an `intake` of None nothing is written: it is counted what would be. Without an index
    nothing is here yet.
    """

    def __init__(
        self,
        survey: Survey,
        index: Index | None,
        blob_directory: BlobDirectory,
        intake: Intake | None,
        tell: Callable[[Finding], None],
    ) -> None:
        self.adopted = Adopted()
        self._survey = survey
        self._index = index
        self._blob_directory = blob_directory
        self._intake = intake
        self._tell = tell
        self._manifests: set[Digest] = set()  # that are here, or would be

    async def run(self, upstream: str, allowance: Allowance) -> Adopted:
        """Take everything in.

        Raises `StorageError`, `CannotShare`. Cancelled, it leaves what is taken so far.
        """
        jobs = plan_jobs(self._survey, upstream)
        for finding in self._survey.findings:
            self._tell(finding)
        self.adopted.unlinked_count = len(self._survey.blobs) - len(jobs)
        self.adopted.repository_count = len(self._survey.repositories)
        waiting = iter(jobs)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_WORKERS):
                    group.create_task(self._work(waiting, allowance))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        finally:
            if self._intake is not None:
                self._intake.stop.set()
        await self._adopt_tags(upstream)
        return self.adopted

    async def _work(self, jobs: Iterator[Job], allowance: Allowance) -> None:
        for job in jobs:
            is_read = await self._adopt(job, allowance)
            if self._intake is not None and not is_read:
                self._intake.pass_over(job.found.size_bytes)

    async def _adopt(self, job: Job, allowance: Allowance) -> bool:
        """Take one blob and its links; False where its bytes need not be read."""
        blob, lacking = await self._look_up(job)
        if blob is not None:
            self.adopted.present_count += 1
            await self._record(job, blob, lacking, is_new=False)
            return False
        size_bytes = job.found.size_bytes
        if not allowance.take(size_bytes):
            self.adopted.left_count += 1
            self.adopted.left_bytes += size_bytes
            return False
        if self._intake is None:
            self._count(size_bytes, Mode.COPY)
            self._note_links(job, lacking)
            return False
        blob = await self._take(job, self._intake)
        if blob is not None:
            await self._record(job, blob, job.holders, is_new=True)
        return True

    async def _look_up(self, job: Job) -> tuple[BlobRecord | None, tuple[Location, ...]]:
        """Find the blob, if row and file are here, and those who lack a link to it."""
        blob: BlobRecord | None = None
        lacking = []
        if self._index is None:
            return None, job.holders
        for location in job.holders:
            link, blob = await self._index.find(location, job.digest)
            if link is None or not _is_good_for(link, job.kind):
                lacking.append(location)
        if blob is not None:
            file = self._blob_directory.find_file(job.digest)
            if file is None or file.size_bytes != blob.size_bytes:
                blob = None
        return blob, tuple(lacking)

    async def _take(self, job: Job, intake: Intake) -> BlobRecord | None:
        """Bring one file in; None where it is not what its name says."""
        source = self._survey.path_of(job.digest)
        is_manifest = job.kind is Kind.MANIFEST
        try:
            taken = await asyncio.to_thread(
                intake.take, source, job.digest, is_rewritable=is_manifest
            )
        except DigestMismatch as exc:
            detail = f"has {job.found.size_bytes} bytes, whose digest is {exc.actual}"
            self._tell(Finding(Fault.DAMAGED, str(source), detail))
            return None
        except SourceUnreadable as exc:
            self._tell(Finding(Fault.UNREADABLE, str(source), str(exc)))
            return None
        self._count(taken.size_bytes, taken.mode)
        now = time.time()
        return BlobRecord(
            job.digest,
            taken.size_bytes,
            taken.xxh3,
            is_public=False,
            stored_at=min(job.found.stored_at, now),
            used_at=presume_use(job.found.seen_at, now),
        )

    def _count(self, size_bytes: int, mode: Mode) -> None:
        self.adopted.taken[mode] += 1
        self.adopted.taken_bytes += size_bytes

    def _note_links(self, job: Job, lacking: tuple[Location, ...]) -> None:
        self.adopted.link_count += len(lacking)
        if job.kind is Kind.MANIFEST:
            self._manifests.add(job.digest)

    async def _record(
        self, job: Job, blob: BlobRecord, lacking: tuple[Location, ...], *, is_new: bool
    ) -> None:
        """Write links, with what a manifest names, and a new blob's row."""
        self._note_links(job, lacking)
        index = self._index
        if index is None or self._intake is None or not lacking:
            return
        if job.kind is Kind.MANIFEST:
            await self._record_manifest(index, blob, lacking)
            return
        link = LinkRecord(blob.digest, Kind.BLOB, LinkState.HELD, "", blob.size_bytes)
        for location in lacking:
            if is_new:
                await index.commit_blob(location, blob, link)
            else:  # when its bytes were last verified stays as it is
                await index.hold(location, blob.digest, link.kind, "", blob.size_bytes)

    async def _record_manifest(
        self, index: Index, blob: BlobRecord, lacking: tuple[Location, ...]
    ) -> None:
        body = await asyncio.to_thread(self._read_manifest, blob.digest)
        media_type = guess_media_type(body)
        link = LinkRecord(blob.digest, Kind.MANIFEST, LinkState.HELD, media_type, blob.size_bytes)
        for location in lacking:
            await index.commit_manifest(location, blob, link, find_named(body), tag=None)

    def _read_manifest(self, digest: Digest) -> bytes:
        fd = self._blob_directory.open_blob(digest)
        try:
            return read_at(fd, _MAX_MANIFEST_BYTES, 0)
        finally:
            os.close(fd)

    async def _adopt_tags(self, upstream: str) -> None:
        for repository in self._survey.repositories:
            location = Location(upstream, repository.name)
            self.adopted.gone_count += len(
                (repository.blobs | repository.manifests) - self._survey.blobs.keys()
            )
            for tag in repository.tags:
                if tag.digest in repository.manifests & self._manifests:
                    await self._adopt_tag(location, tag)
                else:
                    self.adopted.gone_count += 1

    async def _adopt_tag(self, location: Location, found: FoundTag) -> None:
        """Record a tag as never checked: upstream is asked first, and it serves while that fails.

        What upstream told this mirror of it counts more.
        """
        index = self._index
        if index is not None and await index.find_tag(location, found.tag) is not None:
            return
        self.adopted.tag_count += 1
        if index is None or self._intake is None:
            return
        link, _ = await index.find(location, found.digest)
        assert link is not None  # as it was recorded with the manifest
        record = TagRecord(
            found.tag,
            found.digest,
            link.media_type,
            link.size_bytes,
            etag=None,
            checked_at=0.0,
            changed_at=found.changed_at,
        )
        await index.record_tag(location, record)


def _is_good_for(link: LinkRecord, kind: Kind) -> bool:
    """Whether a link leaves nothing to be added; a manifest may have come in as a mere blob."""
    return link.state is LinkState.HELD and link.kind in (kind, Kind.MANIFEST)
