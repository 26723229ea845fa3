"""What is said over `control.sock`: a command in one line of JSON, a reply in another.

Invariant: a command names what it means by parts that are checked here, so nothing unchecked
reaches the engine. Whoever may open the socket owns the data directory.
"""

import msgspec

from engine.errors import InvalidName
from engine.names import Digest, Location, Repository, Tag
from engine.subject import (
    DigestSubject,
    RepositorySubject,
    Subject,
    TagSubject,
    UpstreamSubject,
)
from server.facts import Facts

# Far more than any command takes.
MAX_LINE_BYTES = 64 * 1024


class Quarantine(msgspec.Struct, tag="quarantine", frozen=True):
    """Serve no byte of a damaged blob any more, and keep its file apart."""

    digest: str
    reason: str


class Purge(msgspec.Struct, tag="purge", frozen=True):
    """Drop a tag, a repository, a digest (with or without its repository) or an upstream."""

    is_dry_run: bool = False
    upstream: str | None = None
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None


class Pin(msgspec.Struct, tag="pin", frozen=True):
    """Keep what matches from being evicted."""

    glob: str


class Unpin(msgspec.Struct, tag="unpin", frozen=True):
    """Take a pin back."""

    glob: str


class Status(msgspec.Struct, tag="status", frozen=True):
    """Tell what only the running server knows."""


class Overview(msgspec.Struct, tag="overview", frozen=True):
    """Tell all that there is to see: `server.facts.Facts`."""


class Warm(msgspec.Struct, tag="warm", frozen=True):
    """Fetch an image that is not here yet. `platforms` empty: this machine's.

    The replies are a line now and then, `Warming`; the last one's state is not `running`.
    """

    ref: str
    platforms: list[str] = []
    is_for_all: bool = False


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """Stop as SIGTERM does: finish the downloads under way, then exit."""


Act = Quarantine | Purge | Pin | Unpin
Command = Act | Status | Overview | Warm | Drain


class Quarantined(msgspec.Struct, tag="quarantined", frozen=True):
    """`path`: where the file is kept; None where there was none, or it could not be moved."""

    path: str | None


class PurgedBlob(msgspec.Struct, frozen=True):
    """A blob that went, or would go."""

    digest: str
    size_bytes: int


class Purged(msgspec.Struct, tag="purged", frozen=True):
    """What went, or with `is_dry_run` would go. `kept_count`: blobs that others need."""

    is_dry_run: bool
    tags: list[str]
    blobs: list[PurgedBlob]
    kept_count: int


class Changed(msgspec.Struct, tag="changed", frozen=True):
    """Whether a pin was set, or taken back, that was not before."""

    is_new: bool


class Running(msgspec.Struct, tag="running", frozen=True):
    """The server's state. `answers`: responses since its start, by what the cache did."""

    pid: int
    started_at: float
    answers: dict[str, int]
    stored_bytes: int
    reserved_bytes: int
    limit_bytes: int


class Warming(msgspec.Struct, tag="warming", frozen=True):
    """How far a warm is. `state`: running, done or failed (by `cause`).

    `done_bytes` has in it what was here before (`hit_bytes`) and what fills have so far.
    """

    ref: str
    state: str
    blob_count: int = 0
    done_count: int = 0
    total_bytes: int = 0
    done_bytes: int = 0
    hit_bytes: int = 0
    cause: str = ""


class Draining(msgspec.Struct, tag="draining", frozen=True):
    """The server stops. `timeout_s`: after so long it cuts what is left."""

    pid: int
    connection_count: int
    timeout_s: float


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Why a command was not carried out."""

    error: str


Reply = Quarantined | Purged | Changed | Running | Facts | Warming | Draining | Failed

_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def decode_command(line: bytes) -> Command:
    """Read a command. Raises `msgspec.DecodeError`."""
    return _commands.decode(line)


def decode_reply(line: bytes) -> Reply:
    """Read a reply. Raises `msgspec.DecodeError`."""
    return _replies.decode(line)


def encode(message: Command | Reply) -> bytes:
    """Write a message as a line."""
    # Names are a kind of texts.
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def purge_of(subject: Subject, *, is_dry_run: bool) -> Purge:
    """Make the command that purges `subject`."""
    match subject:
        case TagSubject(location, tag):
            return Purge(is_dry_run, location.upstream, location.repository, tag)
        case RepositorySubject(location):
            return Purge(is_dry_run, location.upstream, location.repository)
        case DigestSubject(digest, location):
            upstream, repository = location or (None, None)
            return Purge(is_dry_run, upstream, repository, digest=digest)
        case UpstreamSubject(upstream):
            return Purge(is_dry_run, upstream)


def subject_of(purge: Purge) -> Subject:
    """Read what a purge means. Raises `InvalidName`."""
    location = _location_of(purge)
    match location, purge.tag, purge.digest:
        case _, None, str(digest):
            return DigestSubject(Digest.parse(digest), location)
        case Location() as where, None, None:
            return RepositorySubject(where)
        case Location() as where, str(tag), None:
            return TagSubject(where, Tag.parse(tag))
        case None, None, None if purge.upstream:
            return UpstreamSubject(purge.upstream)
        case _:
            raise InvalidName(repr(purge), "a tag, a repository, a digest or an upstream")


def _location_of(purge: Purge) -> Location | None:
    if purge.upstream is None or purge.repository is None:
        return None
    return Location(purge.upstream, Repository.parse(purge.repository))
