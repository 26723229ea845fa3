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

    __slots__ = ("_end", "_file", "_start", "_wire", "size_bytes")

    def __init__(
        self, wire: bytes, file: OpenFile | None = None, start: int = 0, end: int = 0
    ) -> None:
        self.size_bytes = len(wire)  # in memory
        self._wire = wire
        self._file = file
        self._start = start
        self._end = end

    @property
    def is_whole(self) -> bool:
        """Whether all of it can still be had."""
        return self._file is None or self._file.is_open

    def leave_by(self, flow: Flow) -> None:
        """Send it, if it is whole."""
        file = self._file
        if file is None:
            flow.write(self._wire)
        else:
            flow.write(self._wire, more=True)
            flow.write_file(Span(file.fd, self._start, self._end, file.acquire()))
