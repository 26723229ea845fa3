"""What all blobs' files take: by the index's count, and by what the index is known to lack.

Invariant: while the index is brought to agree with the files, after it was lost or replaced, the
sum is that of the files. It is not known until they were counted once, where nobody knew before;
after that, a row for a file that was found changes what is listed, and not the sum.
Errs, if at all, by counting a file twice, until `settle`. Pure.
"""


class BlobCount:
    """The count, in bytes of the file system's blocks."""

    def __init__(self) -> None:
        self.is_known = True
        self.is_settled = True  # the index lists all files, as far as is known
        self._listed_bytes = 0
        self._unlisted_bytes = 0
        self._carried_bytes: int | None = None  # of the files, until the new index tells its count

    @property
    def total_bytes(self) -> int:
        """What the files take, as far as is known."""
        if self._carried_bytes is not None:
            return self._carried_bytes
        return self._listed_bytes + self._unlisted_bytes

    def list_bytes(self, total_bytes: int, corrected_bytes: int = 0) -> None:
        """Note what the index says that its rows' files take now.

        `corrected_bytes` of the change are of rows that were added for files that had been there,
        less those that were dropped for want of one.
        """
        if self._carried_bytes is not None:
            self._unlisted_bytes = max(0, self._carried_bytes - total_bytes)
            self._carried_bytes = None
        elif not self.is_settled:
            self._unlisted_bytes = max(0, self._unlisted_bytes - corrected_bytes)
        self._listed_bytes = total_bytes

    def restart(self) -> None:
        """Note that another index takes the place of the one that has told until now."""
        self._carried_bytes = self.total_bytes
        self.is_settled = False

    def distrust(self) -> None:
        """Note that the index may lack any number of files."""
        self.is_known = self.is_settled = False

    def count_files(self, total_bytes: int) -> None:
        """Note what the files were found to take."""
        self.is_known = True
        if self._carried_bytes is not None:
            self._carried_bytes = total_bytes
        else:
            self._unlisted_bytes = max(0, total_bytes - self._listed_bytes)

    def settle(self) -> None:
        """Note that the index and the files agree."""
        if self._carried_bytes is not None:
            self._listed_bytes, self._carried_bytes = self._carried_bytes, None
        self._unlisted_bytes = 0
        self.is_settled = True
