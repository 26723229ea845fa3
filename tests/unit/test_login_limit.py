"""Guesses are bounded by user and address, and one client's mistakes do not lock out others."""

import pytest

from server.login_limit import (
    _MAX_KEYS,
    MAX_PER_ADDRESS,
    MAX_PER_USER,
    WINDOW_S,
    LoginLimit,
    find_source,
)
from server.refusals import LoginsLimited

HOST, OTHER = "192.0.2.1", "192.0.2.2"


def failed(count: int, *, user: bytes = b"ci", at: float = 0.0, address: str = HOST) -> LoginLimit:
    limit = LoginLimit()
    for _ in range(count):
        limit.check(address, user, at)
        limit.note_failure(address, user, at)
    return limit


def is_limited(limit: LoginLimit, address: str, user: bytes, now: float) -> bool:
    try:
        limit.check(address, user, now)
    except LoginsLimited:
        return True
    return False


def test_a_user_may_fail_so_often_and_says_when_to_come_back() -> None:
    limit = failed(MAX_PER_USER)
    with pytest.raises(LoginsLimited) as caught:
        limit.check(HOST, b"ci", 20)
    assert caught.value.retry_after_s == WINDOW_S - 20
    assert not is_limited(limit, HOST, b"ci", WINDOW_S)


def test_the_window_slides() -> None:
    limit = LoginLimit()
    for second in range(MAX_PER_USER):
        limit.note_failure(HOST, b"ci", second)
    assert is_limited(limit, HOST, b"ci", WINDOW_S - 0.1)
    assert not is_limited(limit, HOST, b"ci", WINDOW_S)
    limit.note_failure(HOST, b"ci", WINDOW_S)
    assert is_limited(limit, HOST, b"ci", WINDOW_S + 0.9)
    assert not is_limited(limit, HOST, b"ci", WINDOW_S + 1)


def test_other_users_and_other_addresses_are_not_held_back() -> None:
    limit = failed(MAX_PER_USER)
    assert not is_limited(limit, HOST, b"bob", 0)
    assert not is_limited(limit, OTHER, b"ci", 0)


def test_trying_many_names_is_limited_by_the_address() -> None:
    limit = LoginLimit()
    for number in range(MAX_PER_ADDRESS):
        limit.check(HOST, b"user%d" % number, 0)
        limit.note_failure(HOST, b"user%d" % number, 0)
    assert is_limited(limit, HOST, b"somebody else", 0)
    assert not is_limited(limit, OTHER, b"somebody else", 0)


def test_hosts_of_an_ipv6_network_count_as_one() -> None:
    limit = failed(MAX_PER_USER, address="2001:db8::1")
    assert is_limited(limit, "2001:db8::ffff:2", b"ci", 0)
    assert not is_limited(limit, "2001:db8:0:1::1", b"ci", 0)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unix", "unix"),
    ],
)
def test_a_source_is_whoever_has_the_address(address: str, source: str) -> None:
    assert find_source(address) == source


def test_memory_is_bounded_and_the_oldest_is_forgotten() -> None:
    limit = failed(MAX_PER_USER, address="203.0.113.1")
    for number in range(_MAX_KEYS):
        limit.note_failure(f"10.0.{number // 256}.{number % 256}", b"x", 1)
    assert len(limit._of_users._failed_at) == len(limit._of_addresses._failed_at) == _MAX_KEYS
    assert not is_limited(limit, "203.0.113.1", b"ci", 1)
