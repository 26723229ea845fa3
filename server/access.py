"""The gate before the API where client authentication is configured: `auth.htpasswd`.

Invariant: without valid credentials nothing but `/` is answered by what lies behind, whatever the
method; and only where a gate is opened is a client ever challenged (dockerd answers a challenge of
a mirror with the user's Docker Hub password). The field `Authorization` is neither logged nor
passed on.
Source: RFC 7617; distribution's registry/auth/htpasswd for the file's treatment.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.errors import CacheError
from server.accounts_file import DEFAULT_USER, provision
from server.errors import describe
from server.exchange import Exchange, Handler
from server.htpasswd import parse_credentials
from server.logins import Logins
from server.refusals import Refusal, Unauthorized
from server.reply import send_problem
from server.settings import HtpasswdSettings, ServerSettings

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_gate(handler: Handler, settings: HtpasswdSettings) -> AsyncIterator["Gate"]:
    """Put a gate before `handler`. Makes a missing file of accounts. Raises `AccountsError`."""
    password = await asyncio.to_thread(provision, settings.path)
    if password is not None:
        # As distribution does: nobody could log in otherwise. It is shown this once.
        logger.warning(
            "accounts made, as the file was missing path=%s user=%s password=%s",
            settings.path,
            DEFAULT_USER,
            password,
        )
    logins = await asyncio.to_thread(Logins, settings.path)
    logger.info(
        "client authentication path=%s count=%d", settings.path, len(logins.accounts.hashes)
    )
    try:
        yield Gate(handler, settings.realm, logins)
    finally:
        await logins.aclose()


class Gate:
    """Lets requests with valid credentials through to `handler`."""

    def __init__(self, handler: Handler, realm: str, logins: Logins) -> None:
        self._handler = handler
        self._realm = realm
        self._logins = logins

    async def adopt(self, settings: ServerSettings) -> None:
        """Go by other settings from now on."""
        if settings.auth is not None:
            self._realm = settings.auth.realm
            self._logins.move(settings.auth.path)

    def respond_now(self, exchange: Exchange) -> bool:
        """Pass on what is known to be allowed, refuse what bears no credentials, leave the rest."""
        authorization = exchange.header(b"authorization")
        if _is_open(exchange):
            return self._handler.respond_now(exchange)
        if authorization is None:
            self._refuse(exchange, Unauthorized(self._realm))
            return True
        user = self._logins.find_user(authorization)
        if user is None:
            return False
        exchange.user = _decode(user)
        return self._handler.respond_now(exchange)

    async def respond(self, exchange: Exchange) -> None:
        """Check the credentials; pass on, or refuse with 401, or with 429 after many failures."""
        try:
            if not _is_open(exchange):
                await self._admit(exchange)
        except (Refusal, CacheError) as error:
            self._refuse(exchange, error)
        else:
            await self._handler.respond(exchange)

    async def _admit(self, exchange: Exchange) -> None:
        authorization = exchange.header(b"authorization")
        credentials = None if authorization is None else parse_credentials(authorization)
        if (
            authorization is None
            or credentials is None
            or not await self._logins.judge(authorization, exchange.remote)
        ):
            raise Unauthorized(self._realm)
        exchange.user = _decode(credentials.user)

    def _refuse(self, exchange: Exchange, error: Exception) -> None:
        send_problem(exchange, describe(error, exchange.header(b"user-agent")))


def _decode(user: bytes) -> str:
    return user.decode("utf-8", "backslashreplace")


def _is_open(exchange: Exchange) -> bool:
    """Whether this is `/`, which only says that the server is alive."""
    target = exchange.target
    return target == b"/" or target.startswith(b"/?")
