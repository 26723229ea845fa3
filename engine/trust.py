"""Trust once a start: stored bytes are compared once in a run before they are simply served.

Invariant: a blob that this run has not verified reaches a client only by way of this module. What
is small, and every manifest, is compared before its first byte leaves; what is large while it
leaves, its end held back, as if its own file were the upstream of a fill. Bytes that prove wrong go
into quarantine, and the next request fetches them anew.
What was verified is remembered in the index, by the number of the run, so it costs no memory.
Must not know: HTTP, upstream, who may be served what.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from engine import blobdir
from engine.errors import ContentMismatch, StorageError
from engine.fill import Fill, Outcome
from engine.index_records import BlobRecord
from engine.names import Digest
from engine.reader import Reader
from engine.single_flight import SingleFlight
from engine.verification import Check

log = logging.getLogger(__name__)

# Reading so much takes a few milliseconds even from a slow disk, and saves a client the cut.
MAX_WHOLE_BYTES = 4 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024


class Verdicts(Protocol):
    """Who is told what the bytes proved to be."""

    async def note_verified(self, digest: Digest, xxh3: bytes) -> None:
        """They are right."""

    async def quarantine(self, digest: Digest, reason: str, fd: int | None = None) -> Path | None:
        """They are wrong. `fd`: the file that was read; if it was replaced since, it may stay."""


class Rotted(ContentMismatch):
    """A stored blob's bytes are not what they were."""

    def __init__(self, digest: Digest, fault: str) -> None:
        super().__init__(f"{digest} was damaged on disk: {fault}")


class Trust:
    """Checks under way. `open_blob` opens a blob's file; `aclose` in the end."""

    def __init__(self, open_blob: Callable[[Digest], int], verdicts: Verdicts) -> None:
        self._open_blob = open_blob
        self._verdicts = verdicts
        self._checks: SingleFlight[Digest, BlobRecord | None] = SingleFlight()
        self._fills: dict[Digest, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def verify(self, blob: BlobRecord) -> BlobRecord | None:
        """Compare all of a blob; None where it was damaged or is gone.

        Raises `StorageError` where the file cannot be opened now.
        """
        verified, _ = await self._checks.run(blob.digest, lambda: self._verify(blob))
        return verified

    def read(self, blob: BlobRecord) -> Reader:
        """Read a blob while it is compared, with all who ask for it now; the caller closes it.

        Raises `StorageError` where the file cannot be opened; the reader raises `Rotted`.
        """
        fill = self._fills.get(blob.digest)
        if fill is None:
            fill = Fill(blob.digest, blob.size_bytes)
            with blobdir.map_exceptions(f"open {blob.digest}"):
                fill.attach(self._open_blob(blob.digest))
            fill.open(blob.size_bytes)
            self._fills[blob.digest] = fill
            task = asyncio.create_task(self._lead(blob, fill), name=f"check {blob.digest}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return Reader(fill)

    def find_range(
        self, digest: Digest, start: int, end: int
    ) -> AsyncGenerator[bytes, None] | None:
        """Give bytes far ahead of a check under way from the blob's file; None without a check.

        Like a side fetch's they are not verified: the blob's end, which is held back, vouches.
        """
        fill = self._fills.get(digest)
        return None if fill is None else _iter_file(Reader(fill), start, end)

    async def aclose(self) -> None:
        """Give up what is under way."""
        await self._checks.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _verify(self, blob: BlobRecord) -> BlobRecord | None:
        fill = Fill(blob.digest, blob.size_bytes)
        try:
            fill.attach(self._open_blob(blob.digest))
        except FileNotFoundError:
            return None  # evicted meanwhile
        except OSError as exc:
            raise StorageError(f"cannot open {blob.digest}: {exc}") from exc
        try:
            is_right = await self._compare(blob, fill)
        finally:
            fill.leave()
        return replace(blob, is_trusted=True) if is_right else None

    async def _lead(self, blob: BlobRecord, fill: Fill) -> None:
        try:
            await self._compare(blob, fill)
        finally:
            del self._fills[blob.digest]
            fill.leave()

    async def _compare(self, blob: BlobRecord, fill: Fill) -> bool:
        """Read and compare; end the fill, and pass the verdict."""
        outcome = Outcome.DANGLING
        error: StorageError | Rotted | None = StorageError(f"the check of {blob.digest} stopped")
        check = Check(blob)
        try:
            fault = await self._read(check, fill)
            outcome, error = Outcome.DONE, None
            if fault is not None:
                outcome, error = Outcome.MISMATCH, Rotted(blob.digest, fault)
        finally:
            fill.end(outcome, error)
        if fault is None:
            await self._verdicts.note_verified(blob.digest, check.xxh3)
        else:
            await self._verdicts.quarantine(blob.digest, fault, fill.fd)
        return fault is None

    async def _read(self, check: Check, fill: Fill) -> str | None:
        """Read to the end, publishing what was hashed; return what is wrong, if anything."""
        buffer = bytearray(min(PIECE_BYTES, fill.size_bytes or 1))
        try:
            while not check.is_at_end:
                count = await asyncio.to_thread(check.read, fill.fd, buffer)
                if count == 0:
                    break
                fill.advance(count)
        except StorageError as exc:
            return str(exc)
        return check.find_fault()


async def _iter_file(reader: Reader, start: int, end: int) -> AsyncGenerator[bytes, None]:
    try:
        while start < end:
            count = min(PIECE_BYTES, end - start)
            piece = await asyncio.to_thread(blobdir.read_at, reader.fd, count, start)
            if not piece:
                return
            yield piece
            start += len(piece)
    finally:
        reader.close()
