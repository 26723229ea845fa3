"""The README's code blocks, so that what it tells users is what the tests do."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIRROR = "127.0.0.1:5000"  # the mirror's address in every recipe of plain HTTP
TLS_MIRROR = "mirror.example:5000"  # the same in those of TLS

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    """List the blocks of a language, in order."""
    text = (ROOT / "README.md").read_text()
    return [body for found, body in _BLOCK.findall(text) if found == language]


def commands() -> list[str]:
    """List the shell commands, without their comments."""
    lines = "".join(blocks("sh")).splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def recipe(language: str, marker: str, mirror: str, *, written: str = MIRROR) -> str:
    """Give the one block that holds `marker`, for a mirror at another address than `written`."""
    (found,) = [body for body in blocks(language) if marker in body and written in body]
    return found.replace(written, mirror)
