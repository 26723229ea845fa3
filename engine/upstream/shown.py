"""What of an upstream's words may be shown in messages and logs. Pure.

Invariant: no login, signature or token of an URL leaves here: neither userinfo nor query nor
fragment. That holds for texts that are no URL, too, since those are what messages are about.
"""

import re

_MAX_CHARS = 200
_LOGIN = re.compile(r"^(.*//)?.*@", re.DOTALL)
# What aiohttp's parser quotes of a response's head stands behind one of these.
_QUOTATION = re.compile(r":|\n|\bb['\"]")


def show_url(text: str) -> str:
    """Quote what should be an URL: on one line, bounded, without what may be secret."""
    place = re.split(r"[?#]", text, maxsplit=1)[0]
    return repr(_LOGIN.sub(r"\1", place)[:_MAX_CHARS])


def show_fault(message: str) -> str:
    """Give a parser's complaint without what it complains of, which may be a signed URL."""
    return _QUOTATION.split(message, maxsplit=1)[0].strip()
