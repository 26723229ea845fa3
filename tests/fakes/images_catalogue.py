"""The images that the system tests pull.

Invariant: no two images share a blob, so pulling one never warms a mirror for another.
"""

import random
import shutil
import sys
import sysconfig
from functools import cache, cached_property
from pathlib import Path

from tests.fakes.images import (
    OTHER_ARCHITECTURE,
    Format,
    Image,
    Layer,
    Manifest,
    index_of,
    layer_of,
    manifest_of,
)

BIG_LAYER_BYTES = 104 * 1024 * 1024
HERD_LAYER_BYTES = 8 * 1024 * 1024
# Packages of the standard library, a layer each; small, real, and everywhere.
_STDLIB_PACKAGES = (
    "asyncio",
    "collections",
    "concurrent",
    "dbm",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "sqlite3",
    "urllib",
)


class Catalogue:
    """One image of each kind that matters to clients, each built when it is first wanted."""

    @cached_property
    def busy(self) -> Image:
        """Several gzip layers, Docker's schema 2, under `library/`."""
        return Image("library/busy", "1.35", manifest_of(_system("busy"), Format.DOCKER))

    @cached_property
    def multi(self) -> Image:
        """An image index: two platforms and an attestation."""
        return Image("acme/multi", "1", _index())

    @cached_property
    def deep(self) -> Image:
        """More layers than any client fetches at a time."""
        return Image("acme/deep", "1", manifest_of(_stdlib("deep")))

    @cached_property
    def big(self) -> Image:
        """A layer of more than 100 MB that does not compress."""
        return Image("acme/big", "1", manifest_of([_random_layer("big", BIG_LAYER_BYTES)]))

    @cached_property
    def private(self) -> Image:
        """Only for those whom the token server grants it."""
        return Image("acme/private", "1", manifest_of(_system("private")))

    @cached_property
    def herd(self) -> Image:
        """One layer of 8 MiB, for many clients at a time."""
        return Image("acme/herd", "1", manifest_of([_random_layer("herd", HERD_LAYER_BYTES)]))

    @cached_property
    def pair(self) -> Image:
        """Many layers, for two clients at a time."""
        return Image("acme/pair", "1", manifest_of(_stdlib("pair"), Format.DOCKER))

    @cached_property
    def peer(self) -> Image:
        """For the comparison with distribution's mirror."""
        return Image("library/peer", "1", manifest_of(_system("peer"), Format.DOCKER))

    def all(self) -> list[Image]:
        """Build them all."""
        several = [self.busy, self.multi, self.deep, self.big]
        return [*several, self.private, self.herd, self.pair, self.peer]


@cache
def catalogue() -> Catalogue:
    """Give the one catalogue of this process."""
    return Catalogue()


def _index() -> Manifest:
    host = manifest_of(_system("multi-host"))
    return index_of(host, manifest_of(_system("multi-other"), architecture=OTHER_ARCHITECTURE))


def _system(name: str) -> list[Layer]:
    """A shell, its links, and a little of Python: three layers of different sizes."""
    shell = {"bin/": b"", "bin/busybox": _shell(), **_mark(name, 0)}
    etc = {"etc/": b"", "etc/passwd": b"root:x:0:0:root:/:/bin/busybox\n", **_mark(name, 1)}
    return [layer_of(shell), layer_of(etc), layer_of(_package("json") | _mark(name, 2))]


def _stdlib(name: str) -> list[Layer]:
    return [
        layer_of(_package(package) | _mark(name, number))
        for number, package in enumerate(_STDLIB_PACKAGES)
    ]


def _random_layer(name: str, size_bytes: int) -> Layer:
    """A layer that does not compress, and is therefore stored as it is."""
    noise = random.Random(name).randbytes(size_bytes)
    return layer_of({"data/": b"", "data/noise": noise, **_mark(name, 0)}, compress=False)


def _mark(name: str, number: int) -> dict[str, bytes]:
    """A file that makes the layer differ from the same layer of other images."""
    return {"marks/": b"", f"marks/{name}-{number}": f"{name} {number}\n".encode()}


@cache
def _shell() -> bytes:
    # Any real program does for the mirror; busybox also runs in a container of its own.
    return Path(shutil.which("busybox") or sys.executable).read_bytes()


@cache
def _package(name: str) -> dict[str, bytes]:
    root = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted((root / name).glob("*.py"))
    directories = {"lib/": b"", f"lib/{name}/": b""}
    return directories | {f"lib/{name}/{source.name}": source.read_bytes() for source in sources}
