"""What blob files take, while the index knows less than there is."""

import pytest

from engine.blob_count import BlobCount
from engine.errors import OutOfSpace
from engine.space import Space, Watermarks


def lost(listed_bytes: int, files_bytes: int) -> BlobCount:
    """Blobs whose index was lost before the start, counted."""
    count = BlobCount()
    count.list_bytes(listed_bytes)
    count.distrust()
    count.count_files(files_bytes)
    return count


def test_what_the_index_says_is_all_there_is() -> None:
    count = BlobCount()
    count.list_bytes(50)
    count.list_bytes(70, 20)
    assert (count.total_bytes, count.is_known, count.is_settled) == (70, True, True)


def test_a_row_for_a_file_that_was_found_changes_nothing() -> None:
    count = lost(10, 100)
    assert count.total_bytes == 100
    count.list_bytes(40, 30)
    assert count.total_bytes == 100
    count.list_bytes(45)  # a commit
    assert count.total_bytes == 105
    count.list_bytes(35, -10)  # a row without a file was dropped
    assert count.total_bytes == 105
    count.list_bytes(20)  # an eviction
    assert count.total_bytes == 90


def test_the_count_survives_the_index() -> None:
    count = BlobCount()
    count.list_bytes(100)
    count.restart()
    assert count.total_bytes == 100
    count.restart()  # and the next one proves damaged too
    count.list_bytes(30)
    assert count.total_bytes == 100
    count.list_bytes(80, 50)
    assert count.total_bytes == 100


def test_an_index_that_is_replaced_while_the_files_are_counted_is_not_believed() -> None:
    count = BlobCount()
    count.list_bytes(10)
    count.distrust()
    count.restart()
    count.count_files(100)
    assert count.total_bytes == 100
    count.list_bytes(0)
    assert count.total_bytes == 100


@pytest.mark.parametrize("is_told", [True, False])
def test_in_the_end_the_index_is_believed_again(is_told: bool) -> None:
    count = BlobCount()
    count.list_bytes(100)
    count.restart()
    if is_told:
        count.list_bytes(90)
    count.settle()
    assert count.total_bytes == (90 if is_told else 100)
    count.list_bytes(95, 5)
    assert count.total_bytes == 95


def test_nothing_is_promised_before_the_files_are_counted() -> None:
    space = Space(100)
    space.blobs.distrust()
    assert space.free_bytes == 0
    with pytest.raises(OutOfSpace) as caught:
        space.reserve(1)
    assert caught.value.can_ever_fit
    freed: list[int] = []
    space.watch(lambda: freed.append(space.free_bytes))
    space.count_files(60)
    assert freed == [40]


def test_until_everything_is_listed_only_what_does_not_fit_presses() -> None:
    space = Space(100, Watermarks(high=0.8, low=0.5))
    space.count_blobs(90)
    assert space.above_low_bytes == 40
    space.blobs.restart()
    assert space.above_low_bytes == 0
    with space.want(15):
        assert space.is_above_high
        assert space.above_low_bytes == 5
    pressed: list[bool] = []
    space.watch_high(lambda: pressed.append(True))
    space.settle_blobs()
    assert pressed
    assert space.above_low_bytes == 40
