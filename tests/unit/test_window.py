"""A window, case by case."""

import pytest

from engine.window import BLOCK_BYTES, Window

BLOCK = memoryview(bytes(BLOCK_BYTES))


def full_window() -> Window:
    """A window of two blocks that nobody has read."""
    window = Window(0, max_blocks=2)
    window.append(BLOCK)
    window.append(BLOCK)
    return window


def test_a_full_window_has_no_room_until_its_first_block_was_read() -> None:
    window = full_window()
    assert window.room_bytes == 0
    window.note_read(BLOCK_BYTES - 1)
    assert window.room_bytes == 0
    window.note_read(BLOCK_BYTES)
    assert window.room_bytes == BLOCK_BYTES


def test_bytes_stay_while_there_is_room_for_more() -> None:
    window = full_window()
    window.note_read(2 * BLOCK_BYTES)
    assert window.start == 0
    window.append(memoryview(b"x"))
    assert (window.start, window.end) == (BLOCK_BYTES, 2 * BLOCK_BYTES + 1)


def test_a_slower_reader_changes_nothing() -> None:
    window = full_window()
    window.note_read(BLOCK_BYTES)
    window.note_read(BLOCK_BYTES - 1)
    assert (window.read_to, window.room_bytes) == (BLOCK_BYTES, BLOCK_BYTES)


def test_who_waits_for_what_has_not_come_has_read_nothing() -> None:
    window = full_window()
    window.note_read(2 * BLOCK_BYTES + 1)
    assert (window.read_to, window.room_bytes) == (0, 0)


def test_what_nobody_follows_may_all_be_dropped() -> None:
    window = full_window()
    window.skip_readers()
    assert window.room_bytes == 2 * BLOCK_BYTES


def test_an_overrun_is_a_bug_and_not_lost_bytes() -> None:
    window = full_window()
    with pytest.raises(AssertionError, match="overrun"):
        window.append(memoryview(b"x"))


def test_a_read_stops_at_its_stop_and_at_the_end_of_a_block() -> None:
    window = Window(10)
    window.append(memoryview(b"0123456789"))
    assert window.read(12, 15) == b"234"
    window.append(BLOCK)
    assert len(window.read(10, 2 * BLOCK_BYTES)) == BLOCK_BYTES


def test_blocks_begin_at_the_base() -> None:
    window = Window(10)
    assert window.block_start(10) == 10
    assert window.block_start(9 + BLOCK_BYTES) == 10
    assert window.block_start(10 + BLOCK_BYTES) == 10 + BLOCK_BYTES
