"""What can become of a blob's body on its way from upstream, and what a client is to get.

Invariant: a case's faults are given to its first requests, one each; what comes after is well.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from tests.fakes.upstream import Fault, Gate
from tests.fakes.upstream_content import make_bytes

SMALL = 10_000  # held back whole until it is verified
LARGE = 300_000


class End(Enum):
    """What a client gets."""

    RIGHT = auto()  # all of it, and right
    CUT = auto()  # a connection that breaks off
    REFUSED = auto()  # 502, as nothing was sent yet


@dataclass(frozen=True, slots=True)
class Damage:
    """Faults, and what is to come of them. `requests_count`: how often upstream is asked.

    `is_named`: a manifest tells the size. Gates are opened when the client has got a head; but
    that of a `stall` never is.
    """

    name: str
    faults: tuple[Fault, ...]
    requests_count: int
    end: End = End.RIGHT
    size_bytes: int = LARGE
    is_named: bool = True

    @property
    def namespace(self) -> str:
        """Its own, as breaker and pauses are an upstream's."""
        return f"{self.name}.test"

    @property
    def repository(self) -> str:
        """Its own."""
        return f"bodies/{self.name}"

    @property
    def data(self) -> bytes:
        """The blob."""
        return make_bytes(self.size_bytes, seed=int.from_bytes(self.name.encode(), "big"))


def _held(fault: Fault, at: int = LARGE // 2) -> Fault:
    """Hold the rest of a body back until the client has got a head: then it is too late."""
    return replace(fault, stall_at=at, gate=Gate())


def _claiming(size_bytes: int) -> Fault:
    return Fault(headers={"Content-Length": str(size_bytes)})


_CUT = Fault(truncate_at=100_000)
_BIT = Fault(corrupt_at=-1)
_GZIP = Fault(headers={"Content-Encoding": "gzip"})
_CHUNKED_CUT = replace(_CUT, chunked=True)
_OTHER_SIZE = Fault(headers={"Content-Range": f"bytes 100000-{LARGE - 1}/{LARGE + 1}"})

_BREAKS = (
    Damage("cut", (_CUT,), 2),
    Damage("cut-at-once", (Fault(truncate_at=0),), 2),
    Damage("cut-within-the-end", (Fault(truncate_at=LARGE - 1),), 2),
    Damage("cut-thrice", (_CUT, _CUT, Fault(truncate_at=50_000)), 4),
    Damage("cut-unnamed", (_CUT,), 2, is_named=False),
    Damage("cut-small", (Fault(truncate_at=5_000),), 2, size_bytes=SMALL),
    Damage("cut-chunked", (_CHUNKED_CUT,), 2),
    Damage("cut-chunked-unnamed", (_CHUNKED_CUT,), 2, is_named=False),
    Damage("reset", (Fault(reset_at=100_000),), 2),
    Damage("stall", (Fault(stall_at=100_000, gate=Gate()),), 2),
    Damage("drip", (Fault(drip_bytes=4_096, drip_s=0.005),), 1),
    Damage("chunked", (Fault(chunked=True),), 1),
    Damage("chunked-unnamed", (Fault(chunked=True),), 1, is_named=False),
    Damage("cut-then-503", (_CUT, Fault(status=503)), 3),
    Damage("cut-then-reset", (_CUT, Fault(drop=True)), 3),
    Damage("cut-then-no-range", (_CUT, Fault(no_range=True)), 2),
    Damage("cut-then-shifted", (_CUT, Fault(range_shift=7)), 3),
    Damage("cut-then-416", (_CUT, Fault(status=416)), 3),
    Damage("cut-then-another-size", (_CUT, replace(_OTHER_SIZE, hold=Gate())), 2, End.CUT),
)

_LIES = (
    Damage("bit-once", (_BIT,), 2, size_bytes=SMALL),
    Damage("bit-twice", (_BIT, _BIT), 2, End.REFUSED, SMALL),
    Damage("bit-unnamed", (_BIT, _BIT), 2, End.REFUSED, SMALL, is_named=False),
    Damage("bit-late", (_held(_BIT),), 1, End.CUT),
    Damage("bit-late-unnamed", (_held(_BIT),), 1, End.CUT, is_named=False),
    Damage("bit-before-cut", (replace(_CUT, corrupt_at=3), _held(Fault(), 50_000)), 2, End.CUT),
    Damage("another-body", (Fault(body=b"<html>log in</html>"),), 2, size_bytes=SMALL),
    Damage("empty-body", (Fault(body=b""),), 2, size_bytes=SMALL),
    Damage("too-long", (_claiming(LARGE + 1),), 2),
    Damage("too-short", (_claiming(LARGE - 1),), 2),
    Damage("too-short-twice", (_claiming(LARGE - 1), _held(_claiming(LARGE - 1))), 2, End.CUT),
    Damage("too-short-unnamed", (_held(_claiming(LARGE - 1)),), 1, End.CUT, is_named=False),
    Damage("chunked-another", (_held(Fault(chunked=True, body=bytes(LARGE))),), 1, End.CUT),
    Damage("encoded", (_GZIP,), 1, End.REFUSED),
    Damage("another-digest", (Fault(headers={"Docker-Content-Digest": "sha256:" + "0" * 64}),), 1),
    Damage("no-type", (Fault(headers={"Docker-Content-Digest": None, "Content-Type": None}),), 1),
)

DAMAGES = _BREAKS + _LIES
