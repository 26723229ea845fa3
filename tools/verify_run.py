"""One run of `verify-digests`: jobs, verdicts, what is made of them.

Invariant: a blob that was evicted while the run went on is no finding. What is found is looked at
once more, in the index, before it is told.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from engine.blobdir import BlobDirectory
from engine.errors import IndexTooNew, StorageError
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.layout import Layout
from engine.names import Digest
from engine.subject import DigestSubject, RepositorySubject, Subject
from server.control_messages import Quarantine, Quarantined
from tools import verify_state
from tools.control_client import act
from tools.verify_jobs import Choice, iter_jobs
from tools.verify_state import Finding, State
from tools.verify_work import Fault, Pool, Verdict, count_threads

log = logging.getLogger(__name__)

SAVE_INTERVAL_S = 5.0


class Run:
    """Verifies by `state`, which it keeps up to date. `tell` is given each finding at once."""

    def __init__(
        self,
        layout: Layout,
        state: State,
        subject: Subject | None,
        tell: Callable[[Finding], None],
        *,
        is_quarantining: bool,
    ) -> None:
        self.state = state
        self._layout = layout
        self._blob_directory = BlobDirectory(layout)
        self._subject = subject
        self._tell = tell
        self._is_quarantining = is_quarantining
        self._saved_at = time.monotonic()

    async def measure(self) -> int:
        """Sum up the bytes that are still to be read."""
        async with open_index(self._layout) as index:
            choice = await self._choose(index)
            jobs = iter_jobs(index, self._blob_directory, choice, is_quick=self.state.is_quick)
            return sum([job.blob.size_bytes async for job in jobs])

    async def verify(self, progress: Callable[[int], None]) -> None:
        """Verify everything. Raises `StorageError`; broken off, `state` says how far it got."""
        async with open_index(self._layout) as index:
            choice = await self._choose(index)
            jobs = iter_jobs(index, self._blob_directory, choice, is_quick=self.state.is_quick)
            with Pool(self._blob_directory, progress, count_threads()) as pool:
                async for verdict in pool.iter_verdicts(jobs):
                    await self._note(verdict, index)
                    self._save_now_and_then()

    async def _choose(self, index: IndexInspection | None) -> Choice:
        state = self.state
        digests = await self._find_digests(index)
        return Choice(state.sample, state.salt, state.stored_since, digests, state.after)

    async def _find_digests(self, index: IndexInspection | None) -> frozenset[Digest] | None:
        match self._subject:
            case None:
                return None
            case DigestSubject(digest):
                return frozenset([digest])
            case RepositorySubject(location) if index is not None:
                return frozenset(await index.list_linked(location))
            case subject:
                raise StorageError(f"without an index nobody knows what {subject} has")

    async def _note(self, verdict: Verdict, index: IndexInspection | None) -> None:
        state, job = self.state, verdict.job
        finding = None
        if verdict.fault is Fault.MISSING and not await _is_missing(verdict, index):
            state.gone_count += 1
        else:
            state.checked_count += 1
            state.checked_bytes += job.blob.size_bytes
            finding = await self._judge(verdict)
        if finding is not None:
            state.findings.append(finding)
            self._tell(finding)
        state.after = job.digest

    async def _judge(self, verdict: Verdict) -> Finding | None:
        fault, digest = verdict.fault, verdict.job.digest
        if fault is None:
            return None
        path = str(self._layout.blob_path(digest))
        action = _ACTIONS[fault].format(digest=digest)
        if self._is_quarantining and fault in (Fault.DAMAGED, Fault.WRONG_SIZE):
            reply = await act(self._layout, Quarantine(digest, f"verify-digests: {verdict.detail}"))
            assert isinstance(reply, Quarantined)
            kept = f"kept as {reply.path}" if reply.path else "its file was gone"
            action = f"none: {kept}, and it is fetched anew when it is asked for"
        return Finding(fault.value, digest, path, verdict.detail, action)

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at >= SAVE_INTERVAL_S:
            verify_state.save(self._layout.root, self.state)
            self._saved_at = time.monotonic()


_ACTIONS = {
    Fault.DAMAGED: "verify-digests --quarantine {digest}",
    Fault.WRONG_SIZE: "verify-digests --quarantine {digest}",
    Fault.UNREADABLE: "see that the file can be read by its owner",
    Fault.MISSING: "none: it is fetched anew when it is asked for",
}


async def _is_missing(verdict: Verdict, index: IndexInspection | None) -> bool:
    """Whether a blob without a file has a row still."""
    if index is None or not verdict.job.has_row:
        return False
    row = await index.find_blob(verdict.job.digest)
    return row is not None and row.state == "valid"


@asynccontextmanager
async def open_index(layout: Layout) -> AsyncIterator[IndexInspection | None]:
    """Open the index; None where there is none, or none that can be read."""
    async with AsyncExitStack() as stack:
        try:
            connections = await stack.enter_async_context(ReadOnlyConnections(layout.index_path))
            index = IndexInspection(connections)
            await index.count_disk_bytes()
        except IndexTooNew:
            raise
        except StorageError as exc:
            log.warning("going by the files alone: %s", exc)
            yield None
        else:
            yield index
