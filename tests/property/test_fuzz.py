"""The kept inputs of the fuzzer, and random changes of them, break nothing."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.fuzz.request_target import Broken, RequestTarget, check_responses
from tests.fuzz.run import CORPUS, TARGETS
from tests.fuzz.targets import PARSERS

_CHANGES_PER_INPUT = 5


@contextmanager
def open_target(name: str) -> Iterator[Callable[[bytes], None]]:
    if name != "request":
        yield PARSERS[name]
        return
    target = RequestTarget()
    try:
        yield target
    finally:
        target.close()


def change(data: bytes, dice: random.Random) -> bytes:
    """Change, insert, remove or repeat a few bytes."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(changed))
        match dice.randrange(3):
            case 0:
                changed[at : at + 1] = dice.randbytes(1)
            case 1:
                del changed[at : at + dice.randint(1, 8)]
            case _:
                changed[at:at] = changed[at : at + dice.randint(1, 40)]
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_kept_input_nor_a_change_of_it_breaks_anything(name: str) -> None:
    dice = random.Random(7)
    inputs = sorted(file.read_bytes() for file in (CORPUS / name).iterdir())
    assert len(inputs) >= 10
    with open_target(name) as target:
        for data in inputs:
            target(data)
            for _ in range(_CHANGES_PER_INPUT):
                target(change(data, dice))


@pytest.mark.parametrize(
    "output",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n",
        b"garbage",
    ],
)
def test_responses_that_are_not_whole_are_noticed(output: bytes) -> None:
    with pytest.raises(Broken):
        check_responses(output, has_head=False)
