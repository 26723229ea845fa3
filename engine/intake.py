"""What a lead receives, on its way to readers: hashed, and stored where that is possible.

Invariant: bytes are hashed once and in order, and published after they were written or, where
storing has stopped, in the fill's window. Of what goes into a file, one piece, unless it is the
first, is being written and hashed in a thread while the next gathers; once that has `PIECE_BYTES`,
upstream waits. So a piece is larger the slower the disk is, and nothing waits for one to become
large. What is small is gathered in memory.
Must not know: upstream, who reads.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from engine import blobdir
from engine.errors import StorageError
from engine.fill import Fill
from engine.hands import Hands, finish
from engine.hashing import Hasher
from engine.names import Digest
from engine.partial import Partial

# Half a millisecond of sha256. With twice as much nothing was faster, and a fill may hold two.
PIECE_BYTES = 512 * 1024
# The first piece is written at once if it is no larger: all of it takes some 0.3 ms.
FIRST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Job:
    """A piece that a thread is writing and hashing."""

    parts: list[bytes]
    size_bytes: int
    future: asyncio.Future[None]


class Intake:
    """Of one fill. `release` ends it; one caller at a time."""

    def __init__(self, fill: Fill, file: Partial, hands: Hands) -> None:
        self._fill = fill
        self._file = file
        self._hands = hands
        self._hasher = Hasher(fill.digest.algorithm)
        self._job: _Job | None = None
        self._parts: list[bytes] = []  # the next piece
        self._parts_bytes = 0
        self._error: BaseException | None = None  # what a thread met

    @property
    def end(self) -> int:
        """How far what was taken goes."""
        job_bytes = 0 if self._job is None else self._job.size_bytes
        return self._fill.written_bytes + job_bytes + self._parts_bytes

    @property
    def digest(self) -> Digest:
        """The digest of all that was published."""
        return self._hasher.digest

    @property
    def xxh3(self) -> bytes:
        """The rot checksum of all that was published."""
        return self._hasher.xxh3

    async def adopt(self) -> None:
        """Hash and publish what an earlier fill left in the file. Raises `StorageError`."""
        await self._file.rehash(self._hasher)

    async def take(self, part: bytes) -> None:
        """Take what has come; return when there is room for more. Raises `Abandoned`."""
        if self._fill.window is not None:
            await self._pass_on(memoryview(part))
        elif self._fill.body is not None:
            self._hasher.update(part)
            self._fill.body += part
            self._fill.advance(len(part))
        else:
            await self._store(part)

    async def settle(self) -> None:
        """Wait until all that was taken is published. Raises `Abandoned`."""
        while self._job is not None:
            await asyncio.wait({self._job.future})
        await self._mind_error()

    async def stop_storing(self, cause: StorageError) -> None:
        """Go on without the file. Raises `Abandoned`."""
        parts = self._take_parts()
        if self._job is not None:
            await asyncio.wait({self._job.future})
        parts = [*self._take_parts(), *parts]  # of a thread that failed
        self._error = None
        # The file goes first: the next fill of this digest must not find it.
        self._file.give_up(cause)
        self._fill.stop_storing()
        for part in parts:
            await self._pass_on(memoryview(part))

    def restart(self) -> None:
        """Begin anew, with nothing hashed. What was taken must be settled."""
        self._hasher = Hasher(self._fill.digest.algorithm)

    async def release(self) -> None:
        """Drop what is not published yet, and see that no thread works on the file any more."""
        self._take_parts()
        if self._job is not None:
            await finish(self._job.future)

    async def _store(self, part: bytes) -> None:
        error: StorageError | None = None
        try:
            await self._file.grow(self.end + len(part))
        except StorageError as exc:
            error = exc
        self._parts.append(part)
        self._parts_bytes += len(part)
        if error is not None:
            await self.stop_storing(error)
            return
        is_first = self._fill.written_bytes == 0
        self._begin()
        if is_first and self._fill.written_bytes > 0:
            # Who waits for it goes first: upstream's next piece takes the loop as long again.
            await asyncio.sleep(0)
        while self._job is not None and self._parts_bytes >= PIECE_BYTES:
            await asyncio.wait({self._job.future})
        await self._mind_error()

    async def _mind_error(self) -> None:
        match self._error:
            case None:
                return
            case StorageError() as cause:
                await self.stop_storing(cause)
            case error:
                raise error

    def _begin(self) -> None:
        """Hand the next piece to a thread, unless one is at work, or has failed."""
        if self._job is not None or self._error is not None or not self._parts:
            return
        size_bytes, parts = self._parts_bytes, self._take_parts()
        fill = self._fill
        work = partial(_write_and_hash, fill.fd, parts, fill.written_bytes, self._hasher)
        if fill.written_bytes == 0 and size_bytes <= FIRST_BYTES:
            # Everybody waits for these, and a visit to a thread takes longer than they do.
            self._note_done(parts, size_bytes, _error_of(work))
            return
        self._job = _Job(parts, size_bytes, self._hands.start(work))
        self._job.future.add_done_callback(self._end_job)

    def _end_job(self, future: asyncio.Future[None]) -> None:
        job, self._job = self._job, None
        assert job is not None
        self._note_done(job.parts, job.size_bytes, future.exception())

    def _note_done(self, parts: list[bytes], size_bytes: int, error: BaseException | None) -> None:
        """Publish a piece that is on disk, without waiting for upstream to say more."""
        self._error = error
        if error is None:
            self._fill.advance(size_bytes)
            self._begin()
        else:
            self._parts[:0] = parts
            self._parts_bytes += size_bytes

    def _take_parts(self) -> list[bytes]:
        parts, self._parts, self._parts_bytes = self._parts, [], 0
        return parts

    async def _pass_on(self, rest: memoryview) -> None:
        """Publish bytes as fast as they are read."""
        while rest:
            room_bytes = await self._fill.wait_room()
            self._hasher.update(rest[:room_bytes])
            self._fill.pass_on(rest[:room_bytes])
            rest = rest[room_bytes:]


def _error_of(work: Callable[[], None]) -> StorageError | None:
    try:
        work()
    except StorageError as exc:
        return exc
    return None


def _write_and_hash(fd: int, parts: Sequence[bytes], offset: int, hasher: Hasher) -> None:
    """Raises `StorageError`; then nothing was hashed."""
    blobdir.write_all(fd, parts, offset)
    for part in parts:
        hasher.update(part)
