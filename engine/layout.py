"""Where everything lies in the data directory. Pure: paths only.

Invariant: a path is made only from checked names, so it cannot leave the directory.
"""

from dataclasses import dataclass
from pathlib import Path

from engine.names import DIGEST_HEX_CHARS, Digest


@dataclass(frozen=True, slots=True)
class Layout:
    """The data directory under `root`."""

    root: Path

    @property
    def index_path(self) -> Path:
        """The SQLite index; only SQLite opens it and its `-wal` and `-shm`."""
        return self.root / "index.sqlite3"

    @property
    def snapshot_path(self) -> Path:
        """A copy of the index, at most some minutes old while the mirror runs."""
        return self.root / "index.snapshot"

    @property
    def lock_path(self) -> Path:
        """Held by the one server of this directory."""
        return self.root / "instance.lock"

    @property
    def control_path(self) -> Path:
        """The socket at which the one server takes operators' acts."""
        return self.root / "control.sock"

    @property
    def partial_directory(self) -> Path:
        """Files being filled, of this run and of earlier ones."""
        return self.root / "partial"

    @property
    def quarantine_directory(self) -> Path:
        """Damaged blobs, for people to look at."""
        return self.root / "quarantine"

    @property
    def directories(self) -> list[Path]:
        """Every directory that must exist before anything is stored."""
        algorithms = [self.root / "blobs" / algorithm for algorithm in DIGEST_HEX_CHARS]
        return [*algorithms, self.partial_directory, self.quarantine_directory]

    def shard_path(self, algorithm: str, shard: str) -> Path:
        """`blobs/<alg>/<2 hex>`."""
        return self.root / "blobs" / algorithm / shard

    def blob_path(self, digest: Digest) -> Path:
        """`blobs/<alg>/<2 hex>/<hex>`."""
        return self.shard_path(digest.algorithm, digest.hex[:2]) / digest.hex

    def partial_path(self, digest: Digest) -> Path:
        """`partial/<alg>-<hex>`."""
        return self.partial_directory / self.flat_name(digest)

    def flat_name(self, digest: Digest) -> str:
        """`<alg>-<hex>`: how a file is named where there are few."""
        return f"{digest.algorithm}-{digest.hex}"
