"""The lead of a fill: fetches one blob from upstream, stores it if it can, and verifies it.

Invariant: what is published was written first, or is in the fill's window; the fill ends in every
case. A break is resumed from the first missing byte; a partial of an earlier run is re-hashed and
resumed; bytes that do not match are never kept, and fetched anew once if no client was sent any.
Where there is no room, or the disk fails at any call, it goes on without storing.
Must not know: HTTP, SQL, who reads.
"""

import asyncio
import logging
from dataclasses import dataclass

from engine.errors import (
    CacheError,
    ContentMismatch,
    DigestMismatch,
    NotFound,
    SizeMismatch,
    StorageError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.fault_log import RepeatedLines
from engine.fill import Fill, Outcome
from engine.hands import Hands
from engine.intake import Intake
from engine.names import Repository
from engine.pace import Abandoned
from engine.partial import Partial
from engine.upstream.api import BlobStream, Upstream

log = logging.getLogger(__name__)
# Of the process, as the log is; by upstream.
_resumptions = RepeatedLines(log)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a lead tries. containerd gives up on a blob without headers after 30 s."""

    first_byte_s: float = 25.0
    # Without any progress, before a body that was begun is given up. Clients wait longer than that
    # for a body (containerd 5 min, docker and podman for ever), and most cannot resume it.
    resume_s: float = 60.0
    pause_s: float = 0.2  # before the second resumption in a row that brought nothing; doubled
    max_pause_s: float = 5.0


class Lead:
    """Runs one fill, once."""

    def __init__(
        self,
        fill: Fill,
        upstream: Upstream,
        repository: Repository,
        partial: Partial,
        hands: Hands,
        patience: Patience,
    ) -> None:
        self._fill = fill
        self._upstream = upstream
        self._repository = repository
        self._partial = partial
        self._patience = patience
        self._expected_bytes = fill.size_bytes  # by a descriptor, which anybody may have written
        self._intake = Intake(fill, partial, hands)

    @property
    def xxh3(self) -> bytes:
        """The rot checksum of what was received."""
        return self._intake.xxh3

    async def run(self) -> Outcome:
        """Fetch and verify; end the fill and return how. Cancelled, it leaves the partial."""
        outcome = Outcome.DANGLING
        error: CacheError | None = UpstreamUnavailable(f"the fill of {self._fill.digest} stopped")
        try:
            await self._run()
            outcome, error = Outcome.DONE, None
        except NotFound as exc:
            outcome, error = Outcome.NOT_FOUND, exc
        except ContentMismatch as exc:
            outcome, error = Outcome.MISMATCH, exc
        except CacheError as exc:
            outcome, error = Outcome.RETRYABLE, exc
        except Abandoned:
            log.info("fill stopped digest=%s cause=nobody reads it", self._fill.digest)
        finally:
            await self._intake.release()
            self._fill.end(outcome, error)
            self._leave_partial(outcome)
        return outcome

    def _leave_partial(self, outcome: Outcome) -> None:
        if self._fill.window is not None or outcome is Outcome.DONE:
            return
        if outcome is Outcome.MISMATCH:
            self._partial.discard()
        else:
            self._partial.keep()

    async def _run(self) -> None:
        try:
            if self._partial.is_left:
                await self._adopt_partial()
        except StorageError as exc:
            await self._intake.stop_storing(exc)
        try:
            await self._download()
        except (ContentMismatch, UpstreamProtocolError) as exc:
            if self._fill.is_exposed or not self._may_be_healed(exc):
                raise
            log.warning("fill retried digest=%s cause=%s", self._fill.digest, exc)
            # What upstream says twice counts more than what a manifest says of its size.
            self._expected_bytes = None
            self._fill.retried_count += 1
            await self._restart()
            await self._download()

    async def _adopt_partial(self) -> None:
        """Hash what an earlier run left, so that only the rest has to be fetched."""
        fill = self._fill
        left_bytes = await self._partial.open(0)
        if left_bytes == 0:
            return
        if fill.size_bytes is None or left_bytes >= fill.size_bytes:
            # Without a size there is no closed Range; and a whole partial still needs upstream's
            # word that this repository has the blob.
            fill.size_bytes = await self._upstream.head_blob(
                self._repository, fill.digest, deadline=self._deadline(self._patience.first_byte_s)
            )
        if fill.size_bytes is None or left_bytes > fill.size_bytes:
            await self._restart()
            return
        await self._intake.adopt()
        fill.is_adopted = True
        log.info("partial adopted digest=%s bytes=%d", fill.digest, fill.written_bytes)

    async def _restart(self) -> None:
        if self._fill.window is None and self._partial.is_open:
            try:
                self._partial.empty()
            except StorageError as exc:
                await self._intake.stop_storing(exc)
        self._fill.restart(self._expected_bytes)
        self._intake.restart()

    async def _download(self) -> None:
        fill, fruitless_count, give_up_at = self._fill, 0, 0.0
        while not self._is_complete():
            before = fill.written_bytes
            try:
                await self._stream_once()
            except (UpstreamUnavailable, UpstreamRateLimited, UpstreamProtocolError) as exc:
                cause: UpstreamError = exc
            else:
                cause = UpstreamUnavailable("upstream's body ended before the blob did")
                fill.size_bytes = fill.written_bytes if fill.size_bytes is None else fill.size_bytes
            if not self._is_complete():
                if fill.written_bytes > before or not give_up_at:
                    fruitless_count, give_up_at = 0, self._deadline(self._patience.resume_s)
                await self._pause_or_give_up(fruitless_count, give_up_at, cause)
                fruitless_count += 1
        self._check_digest()

    def _is_complete(self) -> bool:
        # An empty blob needs upstream's word too, so size 0 alone is not enough.
        fill = self._fill
        return fill.written_bytes == fill.size_bytes and (fill.is_open or fill.written_bytes > 0)

    async def _pause_or_give_up(
        self, fruitless_count: int, give_up_at: float, cause: UpstreamError
    ) -> None:
        """Wait before the next try, or raise `cause` when no more is worth trying."""
        fill, patience = self._fill, self._patience
        if not fill.is_open or self._deadline(0) >= give_up_at:
            raise cause
        fill.resumed_count += 1
        _resumptions.warn(
            (self._upstream, type(cause)),
            "fill resumed digest=%s offset=%d size=%s cause=%s",
            fill.digest,
            fill.written_bytes,
            fill.size_bytes,
            cause,
        )
        if fruitless_count:
            await asyncio.sleep(
                min(patience.pause_s * 2.0 ** (fruitless_count - 1), patience.max_pause_s)
            )

    async def _stream_once(self) -> None:
        """Fetch from the first missing byte until the body ends or breaks."""
        fill, start = self._fill, self._fill.written_bytes
        stream = await self._upstream.open_blob(
            self._repository,
            fill.digest,
            start=start,
            end=self._find_end(start),
            deadline=self._deadline(self._patience.first_byte_s),
        )
        try:
            self._check_size(stream.size_bytes)
            fill.open(stream.size_bytes)
            await self._receive(stream)
        finally:
            await stream.aclose()

    async def _receive(self, stream: BlobStream) -> None:
        """Take what comes. What came before an error counts: the next request goes on from it."""
        try:
            async for piece in stream:
                self._check_fits(piece)
                await self._make_room()
                await self._intake.take(piece)
        except CacheError:
            await self._intake.settle()
            raise
        await self._make_room()  # an empty blob has its file, too
        await self._intake.settle()

    async def _make_room(self) -> None:
        """Have a file, and room for all of it, so that clients can be told whether it is stored.

        Not before upstream has said yes: what a manifest names need not exist, and asking for it
        must neither evict anything nor hold a file open. With the first bytes in hand, as those
        that a reset meets in the socket are lost.
        """
        size_bytes = self._fill.size_bytes or 0
        if self._fill.window is not None or self._partial.has_room(size_bytes):
            return
        try:
            if self._partial.is_open:
                await self._partial.reserve(size_bytes)
            elif await self._partial.open(size_bytes) > 0:
                self._partial.empty()
        except StorageError as exc:
            await self._intake.stop_storing(exc)

    def _check_fits(self, piece: bytes) -> None:
        fill, end = self._fill, self._intake.end + len(piece)
        if fill.size_bytes is not None and end > fill.size_bytes:
            raise SizeMismatch(fill.digest, fill.size_bytes, end)

    def _find_end(self, start: int) -> int | None:
        """Where to have a closed Range end: by a descriptor, if nobody knows better."""
        size_bytes = (
            self._expected_bytes if self._fill.size_bytes is None else self._fill.size_bytes
        )
        return size_bytes if size_bytes is not None and 0 < start < size_bytes else None

    def _check_size(self, claimed_bytes: int | None) -> None:
        """Hold upstream to what it said before; the first time a descriptor may contradict it."""
        fill, expected = self._fill, self._fill.size_bytes
        if not fill.is_open:
            # What an earlier run left is not thrown away for what a descriptor says.
            expected = None if fill.written_bytes else self._expected_bytes
            if claimed_bytes is not None or not fill.written_bytes:
                fill.size_bytes = claimed_bytes
        if expected is not None and claimed_bytes is not None and claimed_bytes != expected:
            raise SizeMismatch(fill.digest, expected, claimed_bytes)

    def _check_digest(self) -> None:
        actual = self._intake.digest
        if actual != self._fill.digest:
            raise DigestMismatch(self._fill.digest, actual)

    def _may_be_healed(self, cause: ContentMismatch | UpstreamProtocolError) -> bool:
        """Whether the same blob may well arrive if it is fetched from its first byte.

        Upstream has no bytes behind those of an earlier run where a descriptor's size is too large:
        416 then (RFC 9110 §15.5.17). And some answer every Range wrongly: what was left would be
        in the way of each pull that comes.
        """
        if isinstance(cause, ContentMismatch) or cause.upstream_status == 416:
            return True
        return self._fill.is_adopted and not self._fill.is_open

    def _deadline(self, patience_s: float) -> float:
        return asyncio.get_running_loop().time() + patience_s
