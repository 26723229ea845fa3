"""Which blobs are to be verified: all, or those chosen by name, age or lot.

Invariant: jobs come in one order, by algorithm and digest, whatever the index and the files say
meanwhile; so "everything up to this digest" says how far a run got. A file without a row is a job
like any other, and without an index all files are.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import xxhash

from engine.blobdir import BlobDirectory
from engine.index_inspection import IndexInspection
from engine.index_records import BlobRecord
from engine.index_views import Checksum
from engine.names import DIGEST_HEX_CHARS, Digest
from engine.reconcile import SHARDS

_LOTS = 2**64


@dataclass(frozen=True, slots=True)
class Choice:
    """Which blobs are meant. `salt` makes each run's sample another one.

    `stored_since`: unix seconds. `after`: the last digest that was done already.
    """

    sample: float = 1.0
    salt: int = 0
    stored_since: float = 0.0
    digests: frozenset[Digest] | None = None  # None = all
    after: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One blob to be verified. `blob` says what its bytes should be."""

    blob: BlobRecord
    has_row: bool

    @property
    def digest(self) -> Digest:
        """Its name."""
        return self.blob.digest


def is_chosen(digest: Digest, stored_at: float, choice: Choice) -> bool:
    """Whether a blob is to be verified. Pure: the same for the same arguments."""
    if choice.digests is not None and digest not in choice.digests:
        return False
    if digest <= choice.after or stored_at < choice.stored_since:
        return False
    return xxhash.xxh3_64_intdigest(digest.encode(), seed=choice.salt) < choice.sample * _LOTS


async def iter_jobs(
    index: IndexInspection | None,
    blob_directory: BlobDirectory,
    choice: Choice,
    *,
    is_quick: bool,
) -> AsyncIterator[Job]:
    """All that are chosen. `is_quick`: by the recorded xxh3-128 where there is one."""
    for algorithm in sorted(DIGEST_HEX_CHARS):
        for shard in SHARDS:
            if _is_out_of_sight(algorithm, shard, choice):
                continue
            rows = [] if index is None else await index.list_checksums(algorithm, shard)
            known = {row.digest: row for row in rows}
            files = blob_directory.list_shard(algorithm, shard).digests
            for digest in sorted(known.keys() | files):
                row = known.get(digest) or _measure(blob_directory, digest)
                if row is not None and is_chosen(digest, row.stored_at, choice):
                    yield Job(_record(row, is_quick=is_quick), digest in known)


def _is_out_of_sight(algorithm: str, shard: str, choice: Choice) -> bool:
    prefix = f"{algorithm}:{shard}"
    # "g" comes after every hexadecimal character.
    if f"{prefix}g" <= choice.after:
        return True
    return choice.digests is not None and not any(
        each.startswith(prefix) for each in choice.digests
    )


def _measure(blob_directory: BlobDirectory, digest: Digest) -> Checksum | None:
    """Take a file for what its name says; None where it is gone again."""
    file = blob_directory.find_file(digest)
    return None if file is None else Checksum(digest, file.size_bytes, None, file.stored_at)


def _record(row: Checksum, *, is_quick: bool) -> BlobRecord:
    xxh3 = row.xxh3 if is_quick else None
    return BlobRecord(row.digest, row.size_bytes, xxh3, False, row.stored_at, row.stored_at)
