"""The table of failures: what upstream does, what is asked, what is here, and what comes of it.

Invariant: every cell of the table is here once, under a name that is its namespace and repository,
so all can be asked at the same moment and none feels another's pause or circuit breaker.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from tests.fakes.upstream import Fault, Gate
from tests.fakes.upstream_content import Image


class Ask(Enum):
    """What a client asks for."""

    TAG = "tag"
    TAG_HEAD = "tag-head"
    MANIFEST = "manifest"
    BLOB = "blob"
    BLOB_HEAD = "blob-head"

    @property
    def method(self) -> str:
        """GET or HEAD."""
        return "HEAD" if self.value.endswith("head") else "GET"

    @property
    def is_asked_by_get(self) -> bool:
        """Whether upstream is asked by GET first, so that its words can be passed on."""
        return self in (Ask.MANIFEST, Ask.BLOB)

    @property
    def is_by_tag(self) -> bool:
        """Whether upstream is asked even for what is here."""
        return self in (Ask.TAG, Ask.TAG_HEAD)

    @property
    def is_blob(self) -> bool:
        """Whether it is a blob, rather than a manifest."""
        return self in (Ask.BLOB, Ask.BLOB_HEAD)


class Move(Enum):
    """Where upstream has moved to when it is asked."""

    STAYS = auto()
    REFUSES = auto()  # nothing listens there
    UNTRUSTED = auto()  # its certificate is nobody's
    STRANGE = auto()  # another protocol is spoken there


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to fail, and how that is told to whoever wants what is not here."""

    name: str
    status: int
    code: str
    says: str  # a pattern of the message; upstream's own words are not in the answer to a HEAD
    fault: Fault | None = None
    move: Move = Move.STAYS
    retries_after_s: int | None = None  # at most; None = there is no Retry-After
    is_transient: bool = False  # upstream is asked again within the deadline
    user_agent: str = "docker/26.1.5+dfsg1 go/go1.24.4"

    @property
    def is_absence(self) -> bool:
        """Whether upstream says that there is no such thing."""
        return self.status == 404


def _transient(name: str, says: str, fault: Fault | None, move: Move = Move.STAYS) -> Cause:
    return Cause(name, 503, "UNAVAILABLE", says, fault, move, 30, is_transient=True)


# What upstream says in its errors.
WORDS = "scripted"
_LIMITED = Fault(status=429, code="TOOMANYREQUESTS", message=WORDS, headers={"Retry-After": "600"})

CAUSES = (
    Cause("404", 404, "", "answered 404", Fault(status=404, code="MANIFEST_UNKNOWN")),
    Cause("401", 403, "DENIED", "answered 401", Fault(status=401, code="UNAUTHORIZED")),
    Cause("403", 403, "DENIED", "answered 403", Fault(status=403, code="DENIED")),
    Cause("429", 429, "TOOMANYREQUESTS", "429", _LIMITED, retries_after_s=600),
    Cause(
        "429-containerd",
        503,
        "UNAVAILABLE",
        "429",
        _LIMITED,
        retries_after_s=600,
        user_agent="containerd/1.7.24",
    ),
    Cause(
        "429-containerd-store",
        503,
        "UNAVAILABLE",
        "429",
        _LIMITED,
        retries_after_s=600,
        user_agent="docker/26.1.5 go/go1.24.4 containerd-client/1.7.24 storage-driver/overlayfs",
    ),
    _transient("500", "answered 500", Fault(status=500)),
    _transient("503", "answered 503", Fault(status=503)),
    _transient("reset", r"connection|reset", Fault(drop=True)),
    _transient("silent", "no complete answer within", Fault(hold=Gate())),
    _transient("refused", r"connection refused|connect call failed", None, Move.REFUSES),
    _transient("untrusted", "certificate is not trusted", None, Move.UNTRUSTED),
    # No registry answers so; it is an upstream's fault all the same, and no 404.
    Cause("400", 502, "UNAVAILABLE", "answered 400", Fault(status=400)),
    Cause("strange", 502, "UNAVAILABLE", "not HTTP as it should be", move=Move.STRANGE),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the table. `is_warm`: what is asked for is here."""

    cause: Cause
    ask: Ask
    is_warm: bool

    @property
    def name(self) -> str:
        """Unique; serves as a namespace."""
        return f"{self.cause.name}.{self.ask.value}.{'warm' if self.is_warm else 'cold'}"

    @property
    def repository(self) -> str:
        """Where its content is."""
        return f"table/{self.name}"


CELLS = tuple(
    Cell(cause, what, is_warm) for cause in CAUSES for what in Ask for is_warm in (True, False)
)
COLD = [cell for cell in CELLS if not cell.is_warm]
WARM_TAGS = [cell for cell in CELLS if cell.is_warm and cell.ask.is_by_tag]
WARM_DIGESTS = [cell for cell in CELLS if cell.is_warm and not cell.ask.is_by_tag]


@dataclass(frozen=True, slots=True)
class Targets:
    """The paths of a cell's image."""

    cell: Cell
    image: Image = field(repr=False)

    @property
    def tag(self) -> str:
        """Its manifest by tag."""
        return f"/v2/{self.cell.repository}/manifests/1"

    @property
    def blob(self) -> str:
        """Its layer."""
        return f"/v2/{self.cell.repository}/blobs/{self.image.layers[0]}"

    @property
    def asked(self) -> str:
        """What the cell is about."""
        if self.cell.ask.is_by_tag:
            return self.tag
        if self.cell.ask.is_blob:
            return self.blob
        return f"/v2/{self.cell.repository}/manifests/{self.image.manifest}"
