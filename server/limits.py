"""How much and how long a client may: sizes, times, connections. Pure, but for the two functions
that read and raise the limit on open files.

Times are kept by a sweep, not by a timer per request: each sweep asks a connection what it is at
(`Phase`) and for a mark that moves when it gets on; whoever is at one thing with one mark for too
long is overdue. So a limit holds to within one sweep, and a request costs no clock.
"""

import logging
import resource
from dataclasses import dataclass
from enum import Enum, auto

logger = logging.getLogger(__name__)

# Kept back from connections: up to 1,024 for blob files that are kept open, and as many for the
# rest: 32 connections to each upstream, a partial for each, the index, debug port, threads (about
# 100 for one upstream). Where there are few files, a quarter for each: half is left for clients.
_MOST_RESERVED_FILES = 2_048
# A connection holds its socket, a duplicate of it for output, and a partial it may be reading.
_FILES_PER_CONNECTION = 3
# A CI fleet's pulls come in bursts of hundreds; fewer than this deserve a warning.
_FEW_CONNECTIONS = 1_000
# Beyond this the event loop, not the file table, is what runs out.
_MOST_CONNECTIONS = 100_000


class Phase(Enum):
    """What a connection is at, as far as patience goes."""

    HANDSHAKE = auto()  # TLS is being agreed on
    IDLE = auto()  # between requests
    HEAD = auto()  # a request has begun to arrive
    WORKING = auto()  # a handler has it; upstream deadlines apply, none of ours
    SENDING = auto()  # output waits for the client to read
    LINGERING = auto()  # answered and shut down; what still arrives is discarded


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything that a client controls."""

    head_bytes: int = 32 * 1024  # request line and header lines; nginx has four buffers of 8 KiB
    head_lines: int = 100  # request line included; Apache's LimitRequestFields
    target_bytes: int = 8 * 1024  # RFC 9112 §3 recommends at least 8,000
    handshake_s: float = 10.0  # Go's servers have what they have for a head
    head_s: float = 10.0  # from a request's first byte to the end of its head
    idle_s: float = 75.0  # nginx's keepalive_timeout
    stall_s: float = 60.0  # without a byte of output being taken; nginx's send_timeout
    linger_s: float = 5.0  # nginx's lingering_timeout
    linger_bytes: int = 1024 * 1024  # discarded before the connection is reset
    max_connections: int = 1_000

    def patience_s(self, phase: Phase) -> float:
        """How long a connection may be at `phase` without getting on, in seconds."""
        match phase:
            case Phase.HANDSHAKE:
                return self.handshake_s
            case Phase.IDLE:
                return self.idle_s
            case Phase.HEAD:
                return self.head_s
            case Phase.SENDING:
                return self.stall_s
            case Phase.LINGERING:
                return self.linger_s
            case Phase.WORKING:
                return float("inf")

    @property
    def sweep_s(self) -> float:
        """The interval between sweeps: a quarter of the shortest patience."""
        patiences_s = (self.handshake_s, self.head_s, self.idle_s, self.stall_s, self.linger_s)
        return min(patiences_s) / 4


class Watch:
    """Since when one connection has been where it is, by the clock of the sweep."""

    __slots__ = ("_mark", "_phase", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self._phase = Phase.IDLE
        self._mark = 0

    def is_overdue(self, phase: Phase, mark: int, now: float, limits: Limits) -> bool:
        """Note what the connection is at now, and say whether it has been there for too long."""
        if phase is not self._phase or mark != self._mark:
            self._phase, self._mark, self.since = phase, mark, now
            return False
        return now - self.since >= limits.patience_s(phase)


def derive_max_connections(open_files: int) -> int:
    """How many connections `open_files` descriptors are enough for; at least 16."""
    reserved_files = min(_MOST_RESERVED_FILES, open_files // 2)
    return min(_MOST_CONNECTIONS, max(16, (open_files - reserved_files) // _FILES_PER_CONNECTION))


def raise_open_files() -> int:
    """Raise the soft limit on open files to the hard one and return it; warn where it is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    open_files = _MOST_CONNECTIONS * 4 if hard == resource.RLIM_INFINITY else hard
    if (connections := derive_max_connections(open_files)) < _FEW_CONNECTIONS:
        logger.warning(
            "few open files allowed limit=%d connections=%d action=raise the hard limit: "
            "LimitNOFILE= of systemd, --ulimit nofile= of docker and podman, nofile in limits.conf",
            open_files,
            connections,
        )
    return open_files
