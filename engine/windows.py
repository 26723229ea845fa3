"""How large each window may be, so that all of them together stay within a bound.

Invariant: the windows that are open may grow to `max_blocks` blocks in all, which they share
evenly; one that held more when others came gives up what was read, and until then the others have
to do with less. Each has `MIN_BLOCKS` in any case, or its blob could not get on. So all take at
most 256 MiB, and beyond that 1 MiB for each that finds nothing left.
Must not know: fills, readers.
"""

from engine.window import MAX_BLOCKS, Window

# What is held back of a blob's end may lie across the border of two blocks: neither is read past
# before the blob is verified, and both are needed for that.
MIN_BLOCKS = 2
TOTAL_BLOCKS = 512


class Windows:
    """The windows of one cache."""

    def __init__(self, max_blocks: int = TOTAL_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._open: set[Window] = set()

    @property
    def block_count(self) -> int:
        """How many blocks there are now."""
        return sum(window.block_count for window in self._open)

    def open(self, base: int) -> Window:
        """Make an empty window from `base` on; pair with one `close`."""
        window = Window(base)
        self._open.add(window)
        self._share()
        return window

    def close(self, window: Window) -> None:
        """Note that a window is not read any more. Idempotent."""
        if window in self._open:
            self._open.remove(window)
            self._share()

    def _share(self) -> None:
        """Give each as much as fits, if all grow to that and none gives anything up."""
        held = [window.block_count for window in self._open]
        share = MAX_BLOCKS
        while share > MIN_BLOCKS and sum(max(share, count) for count in held) > self._max_blocks:
            share -= 1
        for window in self._open:
            window.max_blocks = share
