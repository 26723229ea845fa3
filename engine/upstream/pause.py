"""Pauses after a 429: pure, per kind of request; `now` is the event loop's clock.

Invariant: while a pause holds, one request in `probe_s` passes as a probe and no other.
"""

from dataclasses import dataclass

from engine.upstream.kinds import Kind
from engine.upstream.limits import Limits

_MIN_PAUSE_S = 1.0  # `Retry-After: 0` on a 429 is no invitation to hammer


@dataclass(slots=True)
class _Pause:
    began_at: float
    until: float
    probe_at: float


class Pauses:
    """The pauses of one upstream and its credential."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pauses: dict[Kind, _Pause] = {}

    def admit(self, kind: Kind, now: float) -> float | None:
        """Give None where a request may go (perhaps as the probe), else the seconds to wait."""
        pause = self._pauses.get(kind)
        if pause is None or now >= pause.until:
            return None
        if now >= pause.probe_at:
            pause.probe_at = now + self._limits.probe_s
            return None
        return pause.until - now

    def limited(self, kind: Kind, retry_after_s: float | None, now: float) -> float:
        """Begin or renew a pause after a 429; return its seconds."""
        wait_s = self._limits.pause_default_s if retry_after_s is None else retry_after_s
        wait_s = min(max(wait_s, _MIN_PAUSE_S), self._limits.pause_max_s)
        self._pauses[kind] = _Pause(now, now + wait_s, now + self._limits.probe_s)
        return wait_s

    def list_left(self, now: float) -> list[tuple[Kind, float]]:
        """The kinds that are paused, and for how many seconds yet."""
        return [
            (kind, pause.until - now) for kind, pause in self._pauses.items() if now < pause.until
        ]

    def answered(self, kind: Kind, sent_at: float) -> bool:
        """End the pause: a request of this kind got an answer. True if there was one.

        The answer to a request from before the pause says nothing.
        """
        pause = self._pauses.get(kind)
        if pause is None or sent_at < pause.began_at:
            return False
        del self._pauses[kind]
        return True
