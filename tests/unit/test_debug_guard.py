"""Who may see and do what at the debug port."""

import pytest

from server.debug_guard import Guard, Refused, is_address
from server.settings import Listener

TOKEN = "0123456789abcdef"
RIGHT = f"Bearer {TOKEN}".encode()
LOOPBACK = [Listener("127.0.0.1", 1), Listener("::1", 1), Listener(path="/run/debug.sock")]
EXPOSED = [Listener("127.0.0.1", 1), Listener("10.0.0.1", 1)]


def status_of(guard: Guard, authorization: bytes | None, host: bytes | None, *, acts: bool) -> int:
    try:
        if acts:
            guard.admit_actor(authorization)
        else:
            guard.admit_reader(authorization, host)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    ("token", "listeners", "authorization", "host", "reading", "acting"),
    [
        (None, LOOPBACK, None, b"127.0.0.1:1", 200, 403),
        (None, LOOPBACK, RIGHT, b"127.0.0.1:1", 200, 403),
        (None, LOOPBACK, None, b"evil.example", 403, 403),
        (None, EXPOSED, None, b"10.0.0.1", 403, 403),
        (None, EXPOSED, RIGHT, b"10.0.0.1", 403, 403),
        (TOKEN, LOOPBACK, None, b"localhost:1", 200, 401),
        (TOKEN, LOOPBACK, None, b"evil.example:1", 403, 401),
        (TOKEN, LOOPBACK, RIGHT, b"debug.example", 200, 200),
        (TOKEN, LOOPBACK, b"Bearer no", b"127.0.0.1", 401, 401),
        (TOKEN, EXPOSED, None, b"127.0.0.1:1", 401, 401),
        (TOKEN, EXPOSED, RIGHT, b"debug.example", 200, 200),
        (TOKEN, EXPOSED, b"bearer  " + TOKEN.encode(), b"10.0.0.1", 200, 200),
        (TOKEN, EXPOSED, b"Basic " + TOKEN.encode(), b"10.0.0.1", 401, 401),
        (TOKEN, EXPOSED, TOKEN.encode(), b"10.0.0.1", 401, 401),
        (TOKEN, EXPOSED, RIGHT + b"x", b"10.0.0.1", 401, 401),
        (TOKEN, EXPOSED, b"Bearer ", b"10.0.0.1", 401, 401),
    ],
)
def test_who_may_read_and_who_may_act(
    token: str | None,
    listeners: list[Listener],
    authorization: bytes | None,
    host: bytes | None,
    reading: int,
    acting: int,
) -> None:
    guard = Guard(token, listeners)
    assert status_of(guard, authorization, host, acts=False) == reading
    assert status_of(guard, authorization, host, acts=True) == acting


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (None, True),
        (b"127.0.0.1", True),
        (b"[::1]:5001", True),
        (b"LOCALHOST:80", True),
        (b"mirror.localhost", False),
        (b"10.1.2.3:5001", True),
        (b"", False),
        (b"127.0.0.1.evil.example", False),
        (b"localhost.evil.example:5001", False),
        (b"2130706433", False),
    ],
)
def test_a_host_is_an_address_or_somebodys_name(host: bytes | None, expected: bool) -> None:
    assert is_address(host) is expected
