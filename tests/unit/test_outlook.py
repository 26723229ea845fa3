"""How much must be stored until something is evicted, by the watermarks."""

import pytest

from engine.outlook import Budget, bytes_until_gone


def budget(used_bytes: int) -> Budget:
    return Budget(used_bytes, 0, 0, limit_bytes=1000, high_bytes=950, low_bytes=900)


@pytest.mark.parametrize(
    ("used_bytes", "ahead_bytes", "needed_bytes"),
    [
        (950, 0, 1),  # at the watermark: the next byte starts a round
        (951, 0, 0),
        (951, 50, 0),  # the round frees 51 bytes
        (951, 51, 50),  # and the next one comes after as much has come in
        (500, 0, 451),
        (500, 50, 451),
        (500, 51, 501),
        (500, 101, 551),
        (1200, 299, 0),
        (1200, 300, 50),
    ],
)
def test_rounds_are_counted(used_bytes: int, ahead_bytes: int, needed_bytes: int) -> None:
    assert bytes_until_gone(ahead_bytes, budget(used_bytes)) == needed_bytes


def test_what_stands_further_back_never_goes_earlier() -> None:
    for used_bytes in (0, 900, 960):
        needed = [bytes_until_gone(ahead, budget(used_bytes)) for ahead in range(0, 400, 7)]
        assert needed == sorted(needed)
