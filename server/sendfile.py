"""The only caller of `os.sendfile`: bytes of a file go to a socket without a copy in user space.
Where they must be encrypted first, they are read here in pieces.

Invariant: a span's `offset` has moved past exactly the bytes that the socket has taken; its hold
of the file is released once, whether all was sent or not.
Must not know: HTTP, queues, who waits.
"""

import errno
import os

from engine.hot import OpenFile

# At most so much of one file in one turn of the loop: a client on a fast link could otherwise
# take bytes as quickly as they are given, and nobody else would be served meanwhile.
TURN_BYTES = 4 * 1024 * 1024


class FileUnreadable(Exception):
    """The file is shorter than it was said to be, or damaged, or the disk cannot read it."""


class Span:
    """Bytes `offset` up to without `end` of a file, still to be sent.

    `file` is a hold that goes with the span; without one the descriptor is its creator's to keep
    open until the span is sent or dropped.
    """

    __slots__ = ("end", "fd", "file", "offset")

    def __init__(self, fd: int, start: int, end: int, file: OpenFile | None = None) -> None:
        self.fd = fd
        self.offset = start
        self.end = end
        self.file = file

    @property
    def is_revoked(self) -> bool:
        """Whether the file's bytes have proved wrong."""
        return self.file is not None and self.file.is_revoked

    def release(self) -> None:
        """Let go of the file. Idempotent."""
        file, self.file = self.file, None
        if file is not None:
            file.release()


def push(socket_fd: int, span: Span) -> int:
    """Send of `span` what the socket takes now, at most `TURN_BYTES`; return the bytes sent.

    Raises `FileUnreadable` and the socket's own OSErrors; a full socket is not an error.
    """
    # No calls but the one: between two turns of a download the processor's caches forget our code,
    # so that each function more is read from memory again.
    start, file = span.offset, span.file
    count = span.end - start
    if count > TURN_BYTES:
        count = TURN_BYTES
    if file is not None and file.is_revoked:
        raise FileUnreadable(f"it was quarantined, and sent up to {start}")
    try:
        # What is taken in part has filled the socket: to ask again would cost a call to hear so.
        sent = os.sendfile(socket_fd, span.fd, start, count)
    except BlockingIOError:
        return 0
    except OSError as exc:
        if exc.errno == errno.EIO:
            raise FileUnreadable(f"reading failed at {start}") from exc
        raise
    if sent == 0 < count:
        raise FileUnreadable(f"the file ends at {start}, not at {span.end}")
    span.offset += sent
    return sent


def take(span: Span, max_bytes: int) -> bytes:
    """Read the next bytes of `span`, at most `max_bytes`. Raises `FileUnreadable`.

    It blocks for as long as the disk takes, as `push` does.
    """
    if span.is_revoked:
        raise FileUnreadable(f"it was quarantined, and sent up to {span.offset}")
    try:
        data = os.pread(span.fd, min(max_bytes, span.end - span.offset), span.offset)
    except OSError as exc:
        raise FileUnreadable(f"reading failed at {span.offset}: {exc.strerror}") from exc
    if not data:
        raise FileUnreadable(f"the file ends at {span.offset}, not at {span.end}")
    span.offset += len(data)
    return data
