"""The one fault that is ours and not upstream's."""

from engine.errors import UpstreamUnavailable


class NotAsked(UpstreamUnavailable):
    """No connection was free, or the mirror is stopping: says nothing about upstream.

    It is not retried, and no circuit breaker hears of it.
    """
