"""What a service manager is told: ready, reloading, stopping, alive. The protocol of sd_notify(3).

Invariant: one datagram a notice, sent from the event loop and never waited for; a manager that
cannot be reached never fails the server. Without `NOTIFY_SOCKET` nothing is said.
The watchdog's beat is a callback of the loop: a loop that stands still is one that does not beat.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_MICROSECONDS = 1_000_000
# Beyond the drain: for the index to be folded and copied.
_STOP_MARGIN_S = 30.0


class NotifyError(Exception):
    """`NOTIFY_SOCKET` is not an address that this program can send to."""


def parse_address(text: str) -> str:
    """Read `NOTIFY_SOCKET`: a path, or `@` and an abstract name. Raises `NotifyError`."""
    if text.startswith("/"):
        return text
    if text.startswith("@") and len(text) > 1:
        return f"\0{text[1:]}"
    raise NotifyError(f"NOTIFY_SOCKET={text!r} is neither a path nor an abstract name")


def watchdog_interval_s(environ: MutableMapping[str, str], pid: int) -> float | None:
    """How often to beat, in seconds: twice as often as is asked (sd_watchdog_enabled(3)).

    None where nobody asks for it, or asks another process.
    """
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / _MICROSECONDS / 2 if text.isdigit() and int(text) else None


class ServiceManager:
    """Whoever started the server, as far as it wants to hear of it. `close` in the end."""

    def __init__(self, address: str | None = None, beat_s: float | None = None) -> None:
        """`address` None: nobody wants to hear. `beat_s`: how often the watchdog is told."""
        self._beat_s = beat_s
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._address = address

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "ServiceManager":
        """Take what the manager set, and take it out, so that it is no child's to use."""
        beat_s = watchdog_interval_s(environ, os.getpid())
        text = environ.pop("NOTIFY_SOCKET", "")
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            environ.pop(name, None)
        if not text:
            return cls()
        try:
            return cls(parse_address(text), beat_s)
        except NotifyError as exc:
            logger.warning("service manager not told cause=%s", exc)
            return cls()

    def ready(self, status: str) -> None:
        """Say that the server serves, and what it serves; beat from now on."""
        self._tell("READY=1", f"STATUS={status}")
        if self._socket is not None and self._beat_s is not None and self._timer is None:
            self._beat(self._beat_s)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is being read anew, and in the end that this is over."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")
        try:
            yield
        finally:
            self._tell("READY=1")

    def stopping(self, drain_s: float) -> None:
        """Say that the server stops, and how many seconds downloads under way may take."""
        extend_us = int((drain_s + _STOP_MARGIN_S) * _MICROSECONDS)
        status = f"STATUS=finishing downloads under way, for up to {drain_s:g} s"
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={extend_us}", status)

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _beat(self, beat_s: float) -> None:
        self._tell("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(beat_s, self._beat, beat_s)

    def _tell(self, *lines: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            logger.warning(
                "service manager not told notice=%s cause=%s action=see that NotifyAccess= "
                "allows this process",
                lines[0],
                exc,
            )
