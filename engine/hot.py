"""The bounded in-memory table that makes a hit free of SQL.

Invariant: an entry says that the repository may be served this content and that it is stored; it
goes before the content does. At most `MAX_ENTRIES` entries, `MAX_BODY_BYTES` of small bodies and
`MAX_FILES` open files, or a quarter of what the process may open; those that are being sent are
known beyond that, until they are sent. Entries and files go least recently used first; bodies,
which cost one read of a cached file to have again, in the order they came.
Must not know: HTTP, SQL, upstream.
"""

import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from engine.names import Digest, Location

MAX_ENTRIES = 50_000
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_FILES = 1_024
# A body up to this size is kept in memory and leaves with its head in one write.
SMALL_BODY_BYTES = 16 * 1024


class Kind(Enum):
    """Which endpoint content is asked at: a manifest has a media type, a blob has none."""

    MANIFEST = auto()
    BLOB = auto()

    # Identity; Enum's own is a Python function, and this is in the key of each hit.
    __hash__ = object.__hash__


class OpenFile:
    """A blob's file descriptor, shared by all who send it; closed when the last lets go.

    `is_revoked`: its bytes proved wrong, so whoever is sending it must stop. `closed`: whom to tell
    when it is closed.
    """

    __slots__ = ("_holders", "closed", "fd", "is_revoked")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_revoked = False
        self.closed: Callable[[], object] | None = None
        self._holders = 1

    @property
    def is_open(self) -> bool:
        """Whether anybody holds it; once nobody does, it cannot be held any more."""
        return self._holders > 0

    @property
    def is_shared(self) -> bool:
        """Whether more than one holds it."""
        return self._holders > 1

    def acquire(self) -> "OpenFile":
        """Hold it; pair with one `release`."""
        self._holders += 1
        return self

    def release(self) -> None:
        """Let go; the last closes the descriptor."""
        self._holders -= 1
        if self._holders == 0:
            os.close(self.fd)
            if self.closed is not None:
                self.closed()


class Content:
    """One stored piece of content as a repository serves it.

    `prepared` belongs to the server: whatever it computed once for all responses of this content.
    `is_hot`: it is in the table. Whoever kept it asks this before serving it once more.
    """

    __slots__ = ("body", "digest", "is_hot", "media_type", "prepared", "size_bytes", "stored_at")

    def __init__(self, digest: Digest, size_bytes: int, media_type: str, stored_at: float) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.media_type = media_type  # empty for a blob
        self.stored_at = stored_at  # unix seconds
        self.body: bytes | None = None  # small content, once it was read
        self.is_hot = False
        self.prepared: object = None


Key = tuple[Kind, Location, Digest]


class Hot:
    """The table. `open_blob` opens a blob's file for reading, or raises OSError."""

    def __init__(self, open_blob: Callable[[Digest], int]) -> None:
        self._open_blob = open_blob
        # Where the process may open few files, most are needed for its connections.
        self._allowed_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._entries: OrderedDict[Key, Content] = OrderedDict()
        self._keys: dict[Digest, set[Key]] = {}
        self._bodies: dict[Digest, bytes] = {}
        self._body_bytes = 0
        self._files: OrderedDict[Digest, OpenFile] = OrderedDict()
        # Not kept open here any more, but held by somebody. Of a digest one file is known in all.
        self._lent: dict[Digest, OpenFile] = {}

    def find(self, kind: Kind, location: Location, digest: Digest) -> Content | None:
        """Find an entry and make it the most recently used."""
        key = (kind, location, digest)
        content = self._entries.get(key)
        if content is not None:
            self._entries.move_to_end(key)
        return content

    def add(self, kind: Kind, location: Location, content: Content) -> None:
        """Add or replace an entry, dropping the least recently used beyond the bound."""
        key = (kind, location, content.digest)
        replaced = self._entries.get(key)
        if replaced is not None:
            replaced.is_hot = False
        self._entries[key] = content
        content.is_hot = True
        self._entries.move_to_end(key)
        self._keys.setdefault(content.digest, set()).add(key)
        while len(self._entries) > MAX_ENTRIES:
            self._forget_key(next(iter(self._entries)))

    def load_body(self, content: Content) -> bytes | None:
        """Give small content's bytes, reading them once; None for large content.

        Raises OSError where the file cannot be read; ValueError where its size is not right.
        """
        if content.body is not None or content.size_bytes > SMALL_BODY_BYTES:
            return content.body
        body = self._bodies.get(content.digest) or self._read_body(content)
        content.body = body
        return body

    def open_file(self, digest: Digest) -> OpenFile:
        """Hold a blob's open file; the caller releases it. Raises OSError."""
        file = self._files.get(digest)
        if file is None:
            file = self._files[digest] = self._take_back(digest) or OpenFile(
                self._open_blob(digest)
            )
            if len(self._files) > min(MAX_FILES, self._allowed_files):
                self._lend(*self._files.popitem(last=False))
        else:
            self._files.move_to_end(digest)
        return file.acquire()

    def is_sent(self, digest: Digest) -> bool:
        """Whether somebody holds the blob's file now."""
        file = self._files.get(digest)
        return digest in self._lent if file is None else file.is_shared

    def forget(self, digest: Digest) -> None:
        """Drop all that is known of `digest`: nobody is served it from here any more."""
        self._drop_body(digest)
        for key in tuple(self._keys.get(digest, ())):
            self._forget_key(key)
        file = self._files.pop(digest, None) or self._take_back(digest)
        if file is not None:
            file.release()

    def revoke(self, digest: Digest, fd: int | None = None) -> None:
        """Forget a blob whose bytes proved wrong, and stop those who are sending them.

        With `fd` they are stopped only where that is the file they send.
        """
        file = self._files.get(digest) or self._lent.get(digest)
        if file is not None and (fd is None or os.path.sameopenfile(fd, file.fd)):
            file.is_revoked = True
        self.forget(digest)

    def forget_repositories(self, is_forgotten: Callable[[Location], bool]) -> None:
        """Drop what repositories may be served; a few milliseconds for a full table."""
        for key in [key for key in self._entries if is_forgotten(key[1])]:
            self._forget_key(key)

    def close(self) -> None:
        """Close all files; those being sent close when they are sent."""
        while self._files:
            self._files.popitem()[1].release()
        for key in tuple(self._entries):
            self._forget_key(key)

    def _lend(self, digest: Digest, file: OpenFile) -> None:
        """Leave a file to those who hold it, if anybody does."""
        if file.is_shared:
            self._lent[digest] = file
            file.closed = partial(self._lent.pop, digest)
        file.release()

    def _take_back(self, digest: Digest) -> OpenFile | None:
        """Hold a file that was left to others, if there is one."""
        file = self._lent.pop(digest, None)
        if file is None:
            return None
        file.closed = None
        return file.acquire()

    def _forget_key(self, key: Key) -> None:
        self._entries.pop(key).is_hot = False
        keys = self._keys[key[2]]
        keys.discard(key)
        if not keys:
            del self._keys[key[2]]

    def _read_body(self, content: Content) -> bytes:
        file = self.open_file(content.digest)
        try:
            body = os.pread(file.fd, content.size_bytes + 1, 0)
        finally:
            file.release()
        if len(body) != content.size_bytes:
            raise ValueError(f"{content.digest}: {len(body)} bytes, not {content.size_bytes}")
        self._bodies[content.digest] = body
        self._body_bytes += len(body)
        while self._body_bytes > MAX_BODY_BYTES:
            self._drop_body(next(iter(self._bodies)))
        return body

    def _drop_body(self, digest: Digest) -> None:
        body = self._bodies.pop(digest, None)
        if body is None:
            return
        self._body_bytes -= len(body)
        for key in self._keys.get(digest, ()):
            self._entries[key].body = None
