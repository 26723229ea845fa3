"""How far a run of `verify-digests` got, in a file, so that a later one can go on.

Invariant: everything up to `after` was verified, and what was found is in `findings`. The file is
replaced whole, so a crash leaves the last state; a run that ends takes it away.
"""

import os
from pathlib import Path

import msgspec

from engine.errors import StorageError

NAME = "verify.state"


class Finding(msgspec.Struct, frozen=True):
    """One blob that is not what it should be, and what to do about it."""

    fault: str
    digest: str
    path: str
    detail: str
    action: str


class State(msgspec.Struct):
    """A run: what it was asked for, and how far it is."""

    what: str | None
    is_quick: bool
    sample: float
    salt: int
    stored_since: float
    after: str = ""
    checked_count: int = 0
    checked_bytes: int = 0
    gone_count: int = 0
    findings: list[Finding] = []


_decoder = msgspec.json.Decoder(State)


def load(directory: Path) -> State | None:
    """Read the state of a run that was broken off; None where there was none."""
    path = directory / NAME
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as exc:
        raise StorageError(
            f"cannot read {path}: {exc}; without --resume it is written anew"
        ) from exc


def save(directory: Path, state: State) -> None:
    """Write it, in the place of an older one. Raises `StorageError`."""
    path = directory / NAME
    temporary = path.with_name(f"{NAME}.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(state, enc_hook=str))
        os.replace(temporary, path)
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc}") from exc


def clear(directory: Path) -> None:
    """Take it away."""
    (directory / NAME).unlink(missing_ok=True)
