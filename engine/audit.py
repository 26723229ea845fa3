"""Index and files compared, changing nothing: what disagrees, and what is to be done about it.

Invariant: what was merely on its way, stored or evicted while this looked, is no finding: whatever
looks wrong is looked at once more after everything else, and some time later. So it is right on a
live cache and on a stopped one. Nothing is hashed; that is `verify-digests`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from engine.blobdir import BlobDirectory
from engine.index_connections import find_damage
from engine.index_inspection import IndexInspection
from engine.index_views import BlobView, Books
from engine.names import DIGEST_HEX_CHARS, Digest
from engine.reconcile import SHARDS

# A blob's row follows its file within milliseconds, and leaves as long before it.
SECOND_LOOK_S = 1.0


class Kind(Enum):
    """What can be wrong."""

    DAMAGED_INDEX = "damaged-index"
    MISCOUNTED = "miscounted"
    MISSING_FILE = "missing-file"
    WRONG_SIZE = "wrong-size"
    UNKNOWN_FILE = "unknown-file"
    FOREIGN_FILE = "foreign-file"


_ACTIONS = {
    Kind.DAMAGED_INDEX: "a server that starts replaces it; or inspect-index rebuild",
    Kind.MISCOUNTED: "inspect-index rebuild counts anew",
    Kind.MISSING_FILE: "none: it is fetched anew when it is asked for",
    Kind.WRONG_SIZE: "verify-digests --quarantine takes it out; it is fetched anew",
    Kind.UNKNOWN_FILE: "none: a server takes it up when it starts, or as it is asked for",
    Kind.FOREIGN_FILE: "move it out of blobs/: it is neither served nor counted",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement, about a blob (`digest`) or not, at a path."""

    kind: Kind
    path: Path
    digest: Digest | None
    detail: str

    @property
    def action(self) -> str:
        """What an operator should do."""
        return _ACTIONS[self.kind]


def compare(row: BlobView | None, size_bytes: int | None) -> tuple[Kind, str] | None:
    """Compare a blob's row with its file's size; None where they agree. Pure.

    Rows that are being evicted have a file or none, as far as that went.
    """
    match row, size_bytes:
        case None, int(found_bytes):
            return Kind.UNKNOWN_FILE, f"{found_bytes} bytes that the index does not know of"
        case BlobView(state="valid", size_bytes=bytes_), None:
            return Kind.MISSING_FILE, f"the index promises {bytes_} bytes"
        case BlobView(state="valid", size_bytes=bytes_), int(found_bytes) if found_bytes != bytes_:
            return Kind.WRONG_SIZE, f"{found_bytes} bytes, the index says {bytes_}"
        case _:
            return None


class Audit:
    """One comparison of a data directory. All calls raise `StorageError`."""

    def __init__(
        self,
        index: IndexInspection,
        blob_directory: BlobDirectory,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.file_count = 0
        self._index = index
        self._blob_directory = blob_directory
        self._pause = pause

    async def run(self) -> list[Finding]:
        """Compare everything."""
        path = self._blob_directory.layout.index_path
        damage = find_damage(path)
        if damage is not None:
            return [Finding(Kind.DAMAGED_INDEX, path, None, damage)]
        findings = self._judge_books(await self._index.read_books())
        foreign, suspects = self._blob_directory.list_foreign(), set[Digest]()
        for algorithm in DIGEST_HEX_CHARS:
            for shard in SHARDS:
                listing = self._blob_directory.list_shard(algorithm, shard)
                foreign += listing.foreign
                self.file_count += len(listing.digests)
                rows = await self._index.list_shard(algorithm, shard)
                suspects |= self._find_suspects(rows, listing.digests)
        findings += [_foreign(Path(name)) for name in foreign]
        return findings + await self._look_again(suspects)

    def _find_suspects(self, rows: Iterable[BlobView], files: set[Digest]) -> set[Digest]:
        known = {row.digest: row for row in rows}
        return {
            digest
            for digest in known.keys() | files
            if compare(known.get(digest), self._measure(digest)) is not None
        }

    async def _look_again(self, suspects: set[Digest]) -> list[Finding]:
        if suspects:
            await self._pause(SECOND_LOOK_S)
        findings = []
        for digest in sorted(suspects):
            row = await self._index.find_blob(digest)
            verdict = compare(row, self._measure(digest))
            if verdict is not None:
                kind, detail = verdict
                path = self._blob_directory.path_of(digest)
                findings.append(Finding(kind, path, digest, detail))
        return findings

    def _measure(self, digest: Digest) -> int | None:
        file = self._blob_directory.find_file(digest)
        return None if file is None else file.size_bytes

    def _judge_books(self, books: Books) -> list[Finding]:
        counted = (books.blob_count, books.disk_bytes)
        actual = (books.actual_count, books.actual_bytes)
        if counted == actual:
            return []
        detail = f"it counts {counted[0]} blobs of {counted[1]} bytes, and has {actual[0]} of "
        path = self._blob_directory.layout.index_path
        return [Finding(Kind.MISCOUNTED, path, None, f"{detail}{actual[1]}")]


def _foreign(path: Path) -> Finding:
    return Finding(Kind.FOREIGN_FILE, path, None, "not a blob's name or not an ordinary file")
