"""README.md documents every key that is used."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config_schema import (
    OTHER_AUTH_METHODS,
    OTHER_DRIVERS,
    ROOT,
    Free,
    Leaf,
    Listing,
    Schema,
    Section,
    Table,
)
from server.config_tree import join

README = Path(__file__).parents[2] / "README.md"


def iter_used(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Iterate over the paths of used keys; maps of the user's own count as one."""
    if not schema.is_used:
        return
    match schema:
        case Section():
            for key, inner in schema.keys.items():
                yield from iter_used(inner, (*path, key))
        case Leaf() | Free() | Listing() | Table():
            yield join(path)


# Known only to be refused.
REFUSED = {f"storage.{driver}" for driver in OTHER_DRIVERS} | {
    f"auth.{method}" for method in (*OTHER_AUTH_METHODS, "none")
}
USED = [key_path for key_path in iter_used(ROOT) if key_path not in REFUSED]


@pytest.mark.parametrize("key_path", USED)
def test_the_readme_names_every_key_that_is_used(key_path: str) -> None:
    assert f"`{key_path}`" in README.read_text(encoding="utf-8")
