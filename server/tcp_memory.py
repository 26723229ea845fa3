"""How much of its memory for TCP the kernel uses, and how much each socket should queue of it.

All sockets of a machine share that memory (`net.ipv4.tcp_mem`, tcp(7)), and what waits in a socket
for its client to read is of it: up to 4 MiB each. Where it runs out, Linux resets connections that
are closed with bytes unsent, whoever they belong to.

Must not know: connections, what is sent.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import PAGESIZE
from pathlib import Path
from typing import Protocol

from engine.fault_log import RepeatedLines

logger = logging.getLogger(__name__)

# Below it a socket costs more in turns of the loop than it gives back.
MIN_QUEUE_BYTES = 64 * 1024
_SHARES = 128
_SYSCTL = Path("/proc/sys/net/ipv4")
_SOCKSTAT = Path("/proc/self/net/sockstat")
_SOCKSTAT_BYTES = 1024
_LOOK_BYTES = 16 * 1024 * 1024


class Memory(Protocol):
    """What flows tell and ask before they fill their sockets."""

    sent_bytes: int  # by all flows; small answers that leave in one write do not count

    def bound_queue(self) -> int:
        """Say how many bytes a socket should queue beyond those on their way; 0 = no bound."""


class Plenty:
    """Memory without a bound, or that cannot be looked at."""

    sent_bytes = 0

    def bound_queue(self) -> int:
        """Have no bound."""
        return 0


class TcpMemory:
    """The memory of this machine's kernel, looked at each time that so much has been sent."""

    __slots__ = (
        "_fd",
        "_first_bytes",
        "_lines",
        "_look_at_bytes",
        "_most_bytes",
        "_queue_bytes",
        "sent_bytes",
    )

    def __init__(self, sockstat_fd: int, first_pages: int, most_bytes: int) -> None:
        """`sockstat_fd` must stay open.

        `first_pages` is the first number of `tcp_mem`, `most_bytes` what a socket queues at most.
        """
        self._fd = sockstat_fd
        self._first_bytes = first_pages * PAGESIZE
        self._most_bytes = self._queue_bytes = most_bytes
        self._look_at_bytes = 0
        self._lines = RepeatedLines(logger)
        self.sent_bytes = 0

    def bound_queue(self) -> int:
        """Say how many bytes a socket should queue beyond those on their way."""
        if self.sent_bytes >= self._look_at_bytes:
            self._look_at_bytes = self.sent_bytes + _LOOK_BYTES
            self._look()
        return self._queue_bytes

    def _look(self) -> None:
        try:
            used_bytes = parse_used_pages(os.pread(self._fd, _SOCKSTAT_BYTES, 0)) * PAGESIZE
        except OSError as exc:
            self._lines.warn("read", "memory for TCP not read, the last bound stays cause=%s", exc)
            return
        queue_bytes = derive_queue_bytes(used_bytes, self._first_bytes, self._most_bytes)
        if queue_bytes == MIN_QUEUE_BYTES < self._queue_bytes:
            self._lines.warn(
                "least",
                "much waits in sockets for clients to read used_bytes=%d tcp_mem_bytes=%d "
                "effect=large bodies are sent in small pieces until it is less "
                "action=none, or raise net.ipv4.tcp_mem and restart",
                used_bytes,
                self._first_bytes,
            )
        self._queue_bytes = queue_bytes


@contextmanager
def open_tcp_memory() -> Iterator[Memory]:
    """Open this machine's; where the kernel does not tell, there is plenty."""
    try:
        fd = os.open(_SOCKSTAT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield Plenty()
        return
    try:
        first_pages = derive_first_pages(_read("tcp_mem"), os.sysconf("SC_PHYS_PAGES"))
        most_bytes = derive_most_bytes(_read("tcp_wmem"), _read("tcp_notsent_lowat"))
        yield TcpMemory(fd, first_pages, most_bytes)
    finally:
        os.close(fd)


def derive_queue_bytes(used_bytes: int, first_bytes: int, most_bytes: int) -> int:
    """Derive how much a socket should queue: `most_bytes`, or a smaller power of two.

    It is a share of what is left of `first_bytes`, so that use nears that number, which the kernel
    does not mind, and passes it only where so many sockets have the least.

    >>> derive_queue_bytes(1000 << 20, 1 << 30, 4 << 20)
    131072
    """
    share_bytes = max(MIN_QUEUE_BYTES, (first_bytes - used_bytes) // _SHARES)
    return min(most_bytes, 1 << (share_bytes.bit_length() - 1))


def derive_most_bytes(tcp_wmem: str, tcp_notsent_lowat: str) -> int:
    """Derive the bound that leaves a socket what Linux lets it queue, but is felt.

    With a bound the kernel asks for more once half of it has left, and by itself once a third of
    the queue has: so there are fewer turns for a large body. `tcp_wmem`'s last number is a queue
    with all that is kept of it, and a bound that is never reached has less effect: hence 15/16.
    Where `tcp_wmem` is empty it is the kernel's default for all but small machines. A smaller
    bound of the system's own, `tcp_notsent_lowat`, stands.
    """
    most_bytes = int(tcp_wmem.split()[2]) if tcp_wmem else 4 * 1024 * 1024
    system_bytes = int(tcp_notsent_lowat or most_bytes)
    return min(most_bytes * 15 // 16, system_bytes)


def derive_first_pages(tcp_mem: str, physical_pages: int) -> int:
    """Find up to how many pages the kernel does not mind: the first of `tcp_mem`'s three numbers.

    Where `tcp_mem` is empty, as in a container's network, it is the kernel's own default, 3/64 of
    the machine's pages (tcp_init_mem in net/ipv4/tcp.c). It resets connections from the third
    number on, by default twice the first.
    """
    return int(tcp_mem.split()[0]) if tcp_mem else physical_pages * 3 // 64


def parse_used_pages(sockstat: bytes) -> int:
    """Find the pages that TCP uses in the text of /proc/net/sockstat; 0 where they are not told.

    >>> parse_used_pages(b"sockets: used 9\\nTCP: inuse 5 orphan 0 tw 1 alloc 6 mem 17\\nUDP: ...")
    17
    """
    for line in sockstat.splitlines():
        name, *words = line.split()
        if name == b"TCP:":
            return int(dict(zip(words[::2], words[1::2], strict=False)).get(b"mem", 0))
    return 0


def _read(name: str) -> str:
    """Read a setting of the kernel's; empty where it is not for us to see."""
    try:
        return (_SYSCTL / name).read_text()
    except OSError:
        return ""
