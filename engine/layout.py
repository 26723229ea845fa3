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
    def lock_path(self) -> Path:
        """Held by the one server of this directory."""
        return self.root / "instance.lock"

    @property
    def partial_directory(self) -> Path:
        """Files being filled, of this run and of earlier ones."""
        return self.root / "partial"

    @property
    def directories(self) -> list[Path]:
        """Every directory that must exist before anything is stored."""
        algorithms = [self.root / "blobs" / algorithm for algorithm in DIGEST_HEX_CHARS]
        return [*algorithms, self.partial_directory]

    def blob_path(self, digest: Digest) -> Path:
        """`blobs/<alg>/<2 hex>/<hex>`."""
        return self.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex

    def partial_path(self, digest: Digest) -> Path:
        """`partial/<alg>-<hex>`."""
        return self.partial_directory / f"{digest.algorithm}-{digest.hex}"
