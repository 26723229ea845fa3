"""A window holds the newest bytes of a download, and waits for the fastest of its readers."""

from hypothesis import given
from hypothesis import strategies as st

from engine.window import BLOCK_BYTES, Window
from tests.fakes.upstream_content import make_bytes

DATA = make_bytes(8 * BLOCK_BYTES)
MAX_BLOCKS = 3


def feed(window: Window, offset: int, count_bytes: int) -> int:
    """Append as much as may be of what comes at `offset`; return how much it was."""
    piece = DATA[offset : offset + min(count_bytes, window.room_bytes)]
    window.append(memoryview(piece))
    return len(piece)


@given(
    base=st.integers(0, 1000),
    steps=st.lists(
        st.tuples(st.integers(0, 2 * BLOCK_BYTES), st.integers(0, 3 * BLOCK_BYTES)), max_size=20
    ),
)
def test_what_was_received_last_is_read_back_and_the_rest_can_be_checked(
    base: int, steps: list[tuple[int, int]]
) -> None:
    window, read_to = Window(base, MAX_BLOCKS), base
    for received_bytes, read_bytes in steps:
        feed(window, window.end, received_bytes)
        while read_bytes and read_to < window.end:
            if read_to < window.start:
                break
            piece = window.read(read_to, window.end)[:read_bytes]
            assert piece == DATA[read_to : read_to + len(piece)]
            assert piece
            read_to += len(piece)
            read_bytes -= len(piece)
        window.note_read(read_to)
        assert window.start <= max(read_to, base), "nothing goes that nobody has read"
        assert window.end - window.start <= MAX_BLOCKS * BLOCK_BYTES
        for start in range(base, window.start, BLOCK_BYTES):
            assert window.holds_sum(start, DATA[start : start + BLOCK_BYTES])
            assert not window.holds_sum(start, DATA[start + 1 : start + 1 + BLOCK_BYTES])


@given(st.lists(st.integers(1, BLOCK_BYTES), max_size=12))
def test_room_is_exactly_what_can_be_appended_unread(sizes: list[int]) -> None:
    window = Window(0, MAX_BLOCKS)
    for size in sizes:
        before = window.room_bytes
        assert before == MAX_BLOCKS * BLOCK_BYTES - window.end
        assert feed(window, window.end, size) == min(size, before)
        assert window.start == 0
