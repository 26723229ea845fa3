"""What malloc keeps of what is freed.

Must not know: what memory is used for.
"""

import ctypes

# From glibc's malloc.h; see mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# More than any piece, and less than the table of interned strings (1.9 MB), which Python makes anew
# every so many paths of files: in the heap it left a hole that small things filled, for each time.
_MMAP_BYTES = 1 << 20
_TRIM_BYTES = 16 << 20


def keep_large_pieces() -> None:
    """Have the pieces of a body reuse memory that the process has already.

    glibc gives the memory of each 256 KB that upstream sends back to the kernel and asks for it
    anew, a page fault for every 4 KiB. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
