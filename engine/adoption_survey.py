"""What lies in the storage directory of the official registry (2.x, 3.x): looked at, never changed.

Invariant: nothing is written below the directory and no blob is opened here. A name that leads into
our index has been checked by the grammar; what no registry writes is named and left alone, and
symbolic links below `repositories/` and `blobs/` are not followed.
Layout: distribution `registry/storage/paths.go`. A link is a file with a digest in it; a proxy
deletes what expired and leaves links and tags to it behind, so one that leads nowhere is no damage.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from engine.errors import CacheError, InvalidName
from engine.names import DIGEST_HEX_CHARS, Digest, Repository, Tag

_ROOT = Path("docker", "registry", "v2")
# What only a pull-through proxy writes, unless its content never expires.
_SCHEDULE = "scheduler-state.json"
# More than any digest has; a link is not read further.
_MAX_LINK_BYTES = 256
_OWN_DIRECTORIES = ("_layers", "_manifests", "_uploads")


class NotARegistry(CacheError):
    """The directory is not the storage directory of a registry, or cannot be looked at."""


class Fault(Enum):
    """Why something was not taken."""

    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    BAD_LINK = "bad-link"
    FOREIGN = "foreign"

    @property
    def is_loss(self) -> bool:
        """Whether something of the registry's own is lost by it."""
        return self is not Fault.FOREIGN

    @property
    def action(self) -> str:
        """What to do about it."""
        match self:
            case Fault.DAMAGED | Fault.BAD_LINK:
                return "none: it is fetched anew when it is asked for"
            case Fault.UNREADABLE:
                return "let the mirror's user read it, and adopt again"
            case Fault.FOREIGN:
                return "none: it is not the registry's"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was not taken. `path` is whole."""

    fault: Fault
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A blob's file. Times are unix seconds, by the file system."""

    size_bytes: int
    stored_at: float
    seen_at: float  # last read or written


@dataclass(frozen=True, slots=True)
class FoundTag:
    """What a tag means, and since when (unix seconds)."""

    tag: Tag
    digest: Digest
    changed_at: float


@dataclass(frozen=True, slots=True)
class FoundRepository:
    """What the registry serves to those who ask for one repository."""

    name: Repository
    blobs: frozenset[Digest]
    manifests: frozenset[Digest]
    tags: tuple[FoundTag, ...]


@dataclass(slots=True)
class Survey:
    """All that was found. `is_proxy`: there is a pull-through proxy's schedule."""

    root: Path
    is_proxy: bool
    blobs: dict[Digest, FoundBlob] = field(default_factory=dict)
    repositories: list[FoundRepository] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def path_of(self, digest: Digest) -> Path:
        """Where the registry keeps a blob."""
        shard = self.root / "blobs" / digest.algorithm / digest.hex[:2]
        return shard / digest.hex / "data"


def survey(directory: Path) -> Survey:
    """Look at all of `directory`, the registry's `rootdirectory`. Blocks.

    Raises `NotARegistry`; what cannot be looked at further down is a finding.
    """
    root = directory / _ROOT
    try:
        names = set(os.listdir(root))
        is_proxy = directory.joinpath(_SCHEDULE).exists()
    except FileNotFoundError as exc:
        raise NotARegistry(_explain_missing(directory)) from exc
    except OSError as exc:
        raise NotARegistry(
            f"{root} cannot be read by user {os.geteuid()}: {exc.strerror}; let it be read, "
            "or run this as its owner"
        ) from exc
    found = Survey(root, is_proxy)
    surveyor = _Surveyor(found)
    if "blobs" in names:
        surveyor.find_blobs()
    if "repositories" in names:
        surveyor.find_repositories(root / "repositories", ())
    return found


def _explain_missing(directory: Path) -> str:
    if not directory.exists():
        return f"{directory}: No such file or directory"
    if not directory.is_dir():
        return f"{directory} is no directory"
    for up in (directory, *directory.parents):
        if up.joinpath(_ROOT).is_dir():
            return f"{directory} is a part of a registry's storage; name all of it: {up}"
    return f"{directory} is no registry's storage directory: there is no {_ROOT} in it"


class _Link(NamedTuple):
    digest: Digest
    written_at: float


class _Surveyor:
    """One look; what it finds goes into `found`."""

    def __init__(self, found: Survey) -> None:
        self._found = found

    def find_blobs(self) -> None:
        """Find `blobs/<alg>/<2 hex>/<hex>/data`."""
        for algorithm in self._directories(self._found.root / "blobs"):
            if algorithm.name not in DIGEST_HEX_CHARS:
                self._note(Fault.FOREIGN, algorithm.path, "is no digest algorithm that we verify")
                continue
            for shard in self._directories(Path(algorithm.path)):
                for place in self._directories(Path(shard.path)):
                    self._find_blob(algorithm.name, shard.name, place)

    def _find_blob(self, algorithm: str, shard: str, place: os.DirEntry[str]) -> None:
        digest = self._parse_digest(algorithm, place)
        if digest is None:
            return
        data = Path(place.path, "data")
        try:
            found = data.lstat()
        except FileNotFoundError:
            return  # deleted: the directories stay
        except OSError as exc:
            self._note(Fault.UNREADABLE, data, exc.strerror or str(exc))
            return
        if not digest.hex.startswith(shard):
            self._note(Fault.FOREIGN, data, "is not where a registry keeps it")
            return
        seen_at = max(found.st_atime, found.st_mtime)
        self._found.blobs[digest] = FoundBlob(found.st_size, found.st_mtime, seen_at)

    def find_repositories(self, directory: Path, parts: tuple[str, ...]) -> None:
        """Find the repositories below `directory`, whose names begin with `parts`."""
        is_repository = False
        for entry in self._directories(directory):
            if entry.name in _OWN_DIRECTORIES:
                is_repository = True
                continue
            name = "/".join((*parts, entry.name))
            try:
                Repository.parse(name)
            except InvalidName as exc:
                self._note(Fault.FOREIGN, entry.path, str(exc))
                continue
            self.find_repositories(Path(entry.path), (*parts, entry.name))
        if is_repository and parts:
            self._found.repositories.append(self._look_at(directory, "/".join(parts)))

    def _look_at(self, directory: Path, name: str) -> FoundRepository:
        manifests = directory / "_manifests"
        return FoundRepository(
            Repository(name),
            frozenset(self._iter_links(directory / "_layers")),
            frozenset(self._iter_links(manifests / "revisions")),
            tuple(self._iter_tags(manifests / "tags")),
        )

    def _iter_links(self, directory: Path) -> Iterator[Digest]:
        """Read `<alg>/<hex>/link` below `directory`."""
        for algorithm in self._directories(directory):
            for place in self._directories(Path(algorithm.path)):
                digest = self._parse_digest(algorithm.name, place)
                link = Path(place.path, "link")
                if digest is None or (linked := self._read_link(link)) is None:
                    continue
                if linked.digest == digest:
                    yield digest
                else:
                    self._note(Fault.BAD_LINK, link, f"says {linked.digest}")

    def _iter_tags(self, directory: Path) -> Iterator[FoundTag]:
        """Read `<tag>/current/link` below `directory`."""
        for entry in self._directories(directory):
            link = Path(entry.path, "current", "link")
            try:
                tag = Tag.parse(entry.name)
            except InvalidName as exc:
                self._note(Fault.FOREIGN, entry.path, str(exc))
                continue
            linked = self._read_link(link)
            if linked is not None:
                yield FoundTag(tag, linked.digest, linked.written_at)

    def _read_link(self, link: Path) -> _Link | None:
        """Read a link; None where there is none (it was deleted) or it is worth nothing."""
        try:
            fd = os.open(link, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                written_at = os.fstat(fd).st_mtime
                text = file.read(_MAX_LINK_BYTES).decode(errors="replace")
            return _Link(Digest.parse(text), written_at)
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._note(Fault.UNREADABLE, link, exc.strerror or str(exc))
        except InvalidName as exc:
            self._note(Fault.BAD_LINK, link, str(exc))
        return None

    def _parse_digest(self, algorithm: str, place: os.DirEntry[str]) -> Digest | None:
        try:
            return Digest.parse(f"{algorithm}:{place.name}")
        except InvalidName as exc:
            self._note(Fault.FOREIGN, place.path, str(exc))
            return None

    def _directories(self, path: Path) -> list[os.DirEntry[str]]:
        """List what is a directory in `path`, in order of names; the rest is foreign."""
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError as exc:
            self._note(Fault.UNREADABLE, path, exc.strerror or str(exc))
            return []
        directories = []
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry)
            else:
                kind = "a symbolic link" if entry.is_symlink() else "no directory"
                self._note(Fault.FOREIGN, entry.path, f"is {kind}")
        return directories

    def _note(self, fault: Fault, path: str | Path, detail: str) -> None:
        self._found.findings.append(Finding(fault, os.fspath(path), detail))
