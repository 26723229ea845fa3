"""A whole answer as it leaves, so that it can leave again.

Rule: it does not hold its file, for a file that is held counts as being sent; so it may be sent
only while the file is open.
Must not know: who asks, what for, and for how long the answer is right.
"""

from engine.hot import OpenFile
from server.flow import Flow
from server.sendfile import Span


class Parcel:
    """Bytes, and after them those of `file` from `start` up to without `end`."""

    __slots__ = ("_end", "_file", "_start", "_wire", "length_bytes", "memory_bytes")

    def __init__(
        self, wire: bytes, file: OpenFile | None = None, start: int = 0, end: int = 0
    ) -> None:
        self.memory_bytes = len(wire)
        self.length_bytes = len(wire) + end - start
        self._wire = wire
        self._file = file
        self._start = start
        self._end = end

    def leave_by(self, flow: Flow) -> bool:
        """Send it; False, and nothing is sent, where the file has been closed."""
        file = self._file
        if file is None:
            flow.write(self._wire)
        elif file.is_open:
            flow.write(self._wire, more=True)
            flow.write_file(Span(file.fd, self._start, self._end, file.acquire()))
        else:
            return False
        return True
