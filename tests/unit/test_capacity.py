"""What the cache may hold, case by case."""

from pathlib import Path

import pytest

from engine.capacity import Capacity, FileSystem, limit, measure
from engine.errors import StorageError
from engine.settings import EvictionSettings


def of(free_bytes: int, total_bytes: int = 1000) -> FileSystem:
    return FileSystem(total_bytes, free_bytes, 1)


@pytest.mark.parametrize(
    ("free_bytes", "held_bytes", "expected"),
    [
        (1000, 0, Capacity(800)),
        (50, 900, Capacity(800)),
        # Others have 250: 50 are theirs, the rest is ours.
        (750, 0, Capacity(700, is_squeezed=True)),
        (50, 700, Capacity(700, is_squeezed=True)),
        (0, 700, Capacity(650, is_squeezed=True)),
        # Others have more than half: half of maxsize is ours all the same.
        (0, 420, Capacity(400, is_squeezed=True, missing_bytes=30)),
        (0, 300, Capacity(400, is_squeezed=True, missing_bytes=50)),
        (350, 0, Capacity(400, is_squeezed=True)),
    ],
)
def test_leaves_others_their_share_down_to_half_of_maxsize(
    free_bytes: int, held_bytes: int, expected: Capacity
) -> None:
    assert limit(EvictionSettings(), of(free_bytes), held_bytes) == expected


def test_bytes_are_taken_as_they_are_configured() -> None:
    settings = EvictionSettings(
        maxsize_bytes=300, maxsize_fraction=None, minfree_bytes=100, minfree_fraction=None
    )
    assert limit(settings, of(1000), 0) == Capacity(300)
    assert limit(settings, of(350), 0) == Capacity(250, is_squeezed=True)


def test_the_file_system_is_measured(tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert 0 < found.free_bytes <= found.total_bytes
    assert 0 < found.block_bytes <= 64 * 1024


def test_what_is_not_there_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot measure"):
        measure(tmp_path / "none")
