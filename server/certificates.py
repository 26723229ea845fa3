"""The server's certificate: read again when its files change, warned of before it ends.

Invariant: there is always one whole identity. What is new on disk takes its place only if it can be
used; else an error is logged, and the former one stays. Connections keep what they began with.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from engine.pem import PemError
from server.accounts_file import Stamp, take_stamp
from server.endpoint import Endpoint
from server.protocol import Connection
from server.settings import ServerSettings, TLSSettings
from server.tls_connection import Handshakes, SecureConnection
from server.tls_context import load_identity

logger = logging.getLogger(__name__)

LOOK_S = 1.0
EXPIRY_WARNING = timedelta(days=14)
_WARNING_INTERVAL = timedelta(days=1)

Stamps: TypeAlias = tuple[Stamp, ...]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Certificates:
    """Makes connections that show the current certificate. `now` gives the time in UTC."""

    def __init__(self, settings: TLSSettings, now: Callable[[], datetime] = _utc_now) -> None:
        """Read all files. Blocks; raises `PemError`."""
        self.handshakes = Handshakes()
        self._now = now
        self._settings = settings
        self._turn = asyncio.Lock()  # whoever asked last must also be the last to read
        # Taken before the files are read: what is written meanwhile is another state.
        self._stamps = self._seen = _take_stamps(settings)
        self.identity = load_identity(settings)
        self._warn_at = now()
        self._log()

    def connect(self, endpoint: Endpoint) -> Connection:
        """Make a connection of `endpoint`."""
        return SecureConnection(endpoint, self.identity.context, self.handshakes)

    async def run(self) -> None:
        """Look at the files once a second, until cancelled."""
        while True:
            self.warn_of_expiry()
            await asyncio.sleep(LOOK_S)
            await self.look_once()

    async def look_once(self) -> None:
        """Read the files again if they have changed, and have then been still for one look.

        Certificate and key are written one after the other.
        """
        seen, self._seen = self._seen, _take_stamps(self._settings)
        if self._seen == seen != self._stamps:
            await self.reload()

    async def reload(self) -> None:
        """Read the files again; log an error where they cannot be used."""
        try:
            async with self._turn:
                await self._load(self._settings)
        except PemError as exc:
            logger.error("certificate unusable, the former one stays: %s", exc)

    async def adopt(self, settings: ServerSettings) -> None:
        """Go by other settings from now on, and read the files in any case.

        Raises `PemError`, having changed nothing.
        """
        if settings.http.tls is not None:
            async with self._turn:
                await self._load(settings.http.tls)

    async def _load(self, settings: TLSSettings) -> None:
        stamps = _take_stamps(settings)
        try:
            self.identity = await asyncio.to_thread(load_identity, settings)
            self._settings = settings
            self._log()
        finally:
            # What proved unusable is not tried again before it changes.
            self._stamps = stamps

    def warn_of_expiry(self) -> None:
        """Warn, once a day, of a certificate that ends soon."""
        now = self._now()
        if now < self._warn_at:
            return
        warning = describe_expiry(self.identity.expires_at, now)
        if warning is not None:
            self._warn_at = now + _WARNING_INTERVAL
            logger.warning(
                "certificate %s path=%s action=renew the file; it is read again by itself",
                warning,
                self._settings.certificate,
            )

    def _log(self) -> None:
        self._warn_at = self._now()  # a new one is judged at once
        logger.info(
            "certificate read path=%s subject=%s expires=%s",
            self._settings.certificate,
            self.identity.subject,
            self.identity.expires_at.isoformat(),
        )


def describe_expiry(expires_at: datetime, now: datetime) -> str | None:
    """Say that a certificate has ended or will soon; None where there is time. Pure."""
    left = expires_at - now
    if left <= timedelta():
        return f"has expired at {expires_at:%Y-%m-%d %H:%M} UTC: clients refuse it"
    if left <= EXPIRY_WARNING:
        return f"expires in {left.days} days, at {expires_at:%Y-%m-%d %H:%M} UTC"
    return None


def _take_stamps(settings: TLSSettings) -> Stamps:
    paths = (settings.certificate, settings.key, *settings.clientcas)
    return tuple(take_stamp(Path(path)) for path in paths)
