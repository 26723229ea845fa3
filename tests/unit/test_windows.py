"""The windows of all that is streamed without being stored share their memory."""

from engine.window import BLOCK_BYTES, MAX_BLOCKS, Window
from engine.windows import MIN_BLOCKS, Windows

BLOCK = memoryview(bytes(BLOCK_BYTES))


def fill_up(window: Window) -> None:
    """Append as much as may be."""
    while window.room_bytes >= BLOCK_BYTES:
        window.append(BLOCK)


def test_a_few_have_all_they_may_and_many_share() -> None:
    windows = Windows(64)
    opened = [windows.open(0) for _ in range(4)]
    assert {window.max_blocks for window in opened} == {MAX_BLOCKS}
    opened += [windows.open(0) for _ in range(4)]
    assert {window.max_blocks for window in opened} == {8}
    for window in opened:
        fill_up(window)
    assert windows.block_count == 64


def test_what_others_hold_already_is_not_shared() -> None:
    windows = Windows(64)
    for _ in range(3):
        fill_up(windows.open(0))
    late = [windows.open(0) for _ in range(4)]
    assert {window.max_blocks for window in late} == {4}
    for window in late:
        fill_up(window)
    assert windows.block_count == 64


def test_one_that_holds_too_much_gives_it_up_as_it_is_read() -> None:
    windows = Windows(32)
    first = windows.open(0)
    fill_up(first)
    others = [windows.open(0) for _ in range(3)]
    assert first.max_blocks == 5
    assert first.room_bytes == 0
    first.note_read(first.end)
    first.append(BLOCK)
    assert first.block_count == 5
    assert first.end - first.start == 5 * BLOCK_BYTES
    windows.close(others.pop())
    assert first.max_blocks == 10


def test_none_has_too_little_to_get_on() -> None:
    windows = Windows(4)
    opened = [windows.open(0) for _ in range(5)]
    assert {window.max_blocks for window in opened} == {MIN_BLOCKS}


def test_what_is_closed_is_free_for_the_others() -> None:
    windows = Windows(16)
    first, second = windows.open(0), windows.open(0)
    fill_up(first)
    windows.close(first)
    windows.close(first)
    assert second.max_blocks == MAX_BLOCKS
    assert windows.block_count == 0
