"""The name by which one failed request is found again: in the answer, the access log, the log.

Invariant: only what fails has one, so a hit pays nothing for it. A client's own `X-Request-Id` is
taken over where it is harmless in a log line and in a header; else one is made, unlike those of
other mirrors and of earlier runs.
"""

import re
import secrets
from itertools import count

from server.exchange import Exchange

FIELD = "X-Request-Id"

_GIVEN = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}")
_RUN = secrets.token_hex(4)
_numbers = count(1)


def identify(exchange: Exchange) -> str:
    """Name an exchange, always the same way."""
    if not exchange.request_id:
        given = exchange.header(b"x-request-id")
        if given is not None and _GIVEN.fullmatch(given):
            exchange.request_id = given.decode("ascii")
        else:
            exchange.request_id = f"{_RUN}-{next(_numbers):06x}"
    return exchange.request_id
