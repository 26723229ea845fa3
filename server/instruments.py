"""What a running server can tell of itself: to metrics, the status page, the control socket.

Invariant: whatever is set is open and may be read on the loop's thread at any time; what has not
been opened yet, or is closed already, is None. Only the composition root sets anything.
"""

import asyncio

from engine.cache import Cache
from server.access_log import AccessLog
from server.counters import Counters
from server.endpoint import Endpoint
from server.settings import ServerSettings


class Instruments:
    """Everything there is to read."""

    __slots__ = ("access_log", "cache", "clients_at", "counters", "endpoint", "settings", "stop")

    def __init__(self, settings: ServerSettings, counters: Counters) -> None:
        self.settings = settings
        self.counters = counters  # what clients were answered
        self.access_log: AccessLog | None = None  # None for good where it is disabled
        self.cache: Cache | None = None
        self.endpoint: Endpoint | None = None  # the main port's
        self.clients_at: list[str] = []  # the main port's addresses, as URLs
        self.stop = asyncio.Event()  # whoever sets it has the server drain and end
