"""README.md documents every key that is used."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config_schema import ROOT, Free, Leaf, Listing, Schema, Section, Table
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


@pytest.mark.parametrize("key_path", iter_used(ROOT))
def test_the_readme_names_every_key_that_is_used(key_path: str) -> None:
    # Other drivers and ways of authentication are known only to be refused.
    if key_path.startswith(("storage.", "auth.")) and "filesystem" not in key_path:
        key_path = key_path.partition(".")[0]
    assert f"`{key_path}" in README.read_text(encoding="utf-8")
