"""Platforms, and which of an image index's manifests are for one. Pure.

Invariant: a platform without a variant means the usual one, as in containerd: `linux/arm64` is
`linux/arm64/v8`, `linux/arm` is `linux/arm/v7`. Attestations (`unknown/unknown`) are for nobody.
Source: OCI image-spec image-index.md, `platform`; containerd's platforms.Normalize.
"""

import platform
import re
from dataclasses import dataclass

import msgspec

from engine.descriptor import find_named
from engine.errors import CacheError
from engine.names import Digest

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
}
_USUAL_VARIANTS = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and its variant; `variant` may be empty."""

    system: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        parts = (self.system, self.architecture, self.variant)
        return "/".join(part for part in parts if part)

    @property
    def full_variant(self) -> str:
        """The variant, or the usual one."""
        return self.variant or _USUAL_VARIANTS.get(self.architecture, "")

    def runs(self, other: "Platform") -> bool:
        """Whether what is made for `other` is meant by this one."""
        return (self.system, self.architecture, self.full_variant) == (
            other.system,
            other.architecture,
            other.full_variant,
        )


class PlatformMissing(CacheError):
    """An image index has nothing for the platforms that are wanted."""

    def __init__(self, wanted: list[Platform], offered: list[str]) -> None:
        has = ", ".join(offered) or "none"
        super().__init__(
            f"the image is not made for {', '.join(map(str, wanted))}; it has {has}: "
            "choose by --platform"
        )


class _RawPlatform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _RawEntry(msgspec.Struct):
    digest: str
    platform: _RawPlatform | None = None


class _RawIndex(msgspec.Struct):
    manifests: list[_RawEntry] = []


_decoder = msgspec.json.Decoder(_RawIndex)


def parse_platform(text: str) -> Platform:
    """Read `OS/ARCHITECTURE[/VARIANT]`. Raises ValueError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{text!r} is no platform such as linux/amd64 or linux/arm/v7")
    return Platform(*parts)


def own_platform() -> Platform:
    """Tell what containers on this machine are made for: they run Linux everywhere."""
    machine = platform.machine()
    return parse_platform(f"linux/{_MACHINES.get(machine, machine.lower() or 'amd64')}")


def choose_manifests(manifest: bytes, wanted: list[Platform]) -> list[Digest]:
    """List the manifests that `manifest` names for the platforms `wanted`; empty = all of them.

    What says no platform is for all. A manifest that is no image index names none. Raises
    `PlatformMissing` where nothing is chosen of several.
    """
    named = [each.digest for each in find_named(manifest) if each.is_manifest]
    if not named or not wanted:
        return named
    offered = {
        each.digest: Platform(each.platform.os, each.platform.architecture, each.platform.variant)
        for each in _decoder.decode(manifest).manifests
        if each.platform is not None and each.platform.architecture
    }
    chosen = [
        digest
        for digest in named
        if digest not in offered or any(each.runs(offered[digest]) for each in wanted)
    ]
    if not chosen:
        known = {str(each): None for each in offered.values() if each.system != "unknown"}
        raise PlatformMissing(wanted, list(known))
    return chosen
