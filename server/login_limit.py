"""How many logins may fail before further ones are refused unseen. Pure: the time is given.

Invariant: in any `WINDOW_S`, at most `MAX_PER_USER` passwords are tried for a user name from an
address, and at most `MAX_PER_ADDRESS` from an address in all. Memory is bounded.

Refusing beats delaying: a delay holds a connection, and guesses come on many at once. A single low
limit for an address would let one job with an outdated password lock out everybody who shares its
address translation or proxy; so the low limit counts a user name, too.
"""

import ipaddress
from collections import deque

from server.refusals import LoginsLimited

WINDOW_S = 60.0
MAX_PER_USER = 10
MAX_PER_ADDRESS = 50
_MAX_KEYS = 4_096
# An IPv6 host has at least so many bits of addresses to choose from (RFC 4291 §2.5.1).
_IPV6_HOST_BITS = 64


class LoginLimit:
    """Failed logins by address. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._of_users = _Failures(MAX_PER_USER)
        self._of_addresses = _Failures(MAX_PER_ADDRESS)

    def check(self, address: str, user: bytes, now: float) -> None:
        """Raise `LoginsLimited` where no further login may be tried yet."""
        source = find_source(address)
        wait_s = max(
            self._of_users.wait_s((source, user), now),
            self._of_addresses.wait_s((source, b""), now),
        )
        if wait_s > 0:
            raise LoginsLimited(wait_s)

    def note_failure(self, address: str, user: bytes, now: float) -> None:
        """Count a login that has failed."""
        source = find_source(address)
        self._of_users.note((source, user), now)
        self._of_addresses.note((source, b""), now)


def find_source(address: str) -> str:
    """Tell whom an address stands for: an IPv6 host chooses among all of its network's."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address  # a unix socket's client
    if ip.version == 4:
        return address
    return str(ipaddress.IPv6Address(int(ip) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS))


class _Failures:
    """The latest failures of each key, of which the one that failed longest ago is forgotten."""

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._failed_at: dict[tuple[str, bytes], deque[float]] = {}

    def wait_s(self, key: tuple[str, bytes], now: float) -> float:
        """Tell how long it takes until fewer than the maximum lie within the window."""
        failed_at = self._failed_at.get(key)
        if failed_at is None or len(failed_at) < self._max_count:
            return 0.0
        return max(0.0, failed_at[0] + WINDOW_S - now)

    def note(self, key: tuple[str, bytes], now: float) -> None:
        """Count a failure."""
        failed_at = self._failed_at.pop(key, None) or deque(maxlen=self._max_count)
        failed_at.append(now)
        self._failed_at[key] = failed_at
        if len(self._failed_at) > _MAX_KEYS:
            del self._failed_at[next(iter(self._failed_at))]
