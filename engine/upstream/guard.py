"""What a 429 does: the error for the one who got it, a pause for those who come after.

Says in the log when a pause begins and ends, and what can be done about it.
"""

import logging
import time
from collections.abc import Mapping

from engine.errors import UpstreamRateLimited
from engine.live_views import PauseView
from engine.upstream.kinds import Counts, Kind
from engine.upstream.limits import Limits
from engine.upstream.pause import Pauses
from engine.upstream.reply import reason_of, retry_after_s

logger = logging.getLogger(__name__)


class RateGuard:
    """The pauses of one upstream. `now` is the event loop's clock."""

    def __init__(self, namespace: str, limits: Limits, counts: Counts) -> None:
        self._namespace = namespace
        self._counts = counts
        self._pauses = Pauses(limits)

    def check(self, kind: Kind, now: float) -> None:
        """Raise `UpstreamRateLimited` while `kind` is paused."""
        wait_s = self._pauses.admit(kind, now)
        if wait_s is None:
            return
        self._counts.refused[kind, "paused"] += 1
        message = (
            f"{self._namespace} is not asked: it rate-limited {kind.value} requests (429), "
            f"paused for another {wait_s:.0f} s"
        )
        raise UpstreamRateLimited(message, retry_after_s=wait_s)

    def look(self, now: float) -> tuple[PauseView, ...]:
        """Tell which kinds are paused."""
        return tuple(PauseView(kind.value, left_s) for kind, left_s in self._pauses.list_left(now))

    def limited(
        self, kind: Kind, headers: Mapping[str, str], body: bytes, now: float
    ) -> UpstreamRateLimited:
        """Take note of a 429; return the error to raise."""
        asked_s = retry_after_s(headers.get("Retry-After"), time.time())
        wait_s = self._pauses.limited(kind, asked_s, now)
        reason = reason_of(body)
        logger.warning(
            "upstream rate-limits upstream=%s kind=%s pause_s=%.0f reason=%r "
            "hint=configure credentials with a higher limit, or a longer tagttl",
            self._namespace,
            kind.value,
            wait_s,
            reason,
        )
        message = f"{self._namespace} rate-limits {kind.value} requests (429)"
        return UpstreamRateLimited(
            f"{message}: {reason}" if reason else message, retry_after_s=wait_s
        )

    def answered(self, kind: Kind, sent_at: float) -> None:
        """Take note of an answer that was no 429, to a request of that time."""
        if self._pauses.answered(kind, sent_at):
            logger.warning(
                "upstream answers again upstream=%s kind=%s", self._namespace, kind.value
            )
