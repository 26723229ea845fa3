"""Pages of a sorted list: `n`, `last` and the `Link` to the next page. Pure.

Invariant: following `Link` visits each entry once, whatever comes or goes meanwhile, because a page
starts behind the name `last`, not at a position.
Source: OCI distribution-spec "Listing Tags".
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from server.refusals import PageSizeInvalid

_SIZE = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What the client asked for: at most `n` entries (None = all), behind the name `last`.

    `namespace` is the `ns` value, which links keep.
    """

    n: int | None = None
    last: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page; where `has_more`, the next one is `n` entries behind its last."""

    entries: tuple[str, ...]
    has_more: bool
    n: int = 0


def parse_size(text: str) -> int | None:
    """Read `n`; an empty one is none. Raises `PageSizeInvalid`."""
    if not text:
        return None
    if not _SIZE.fullmatch(text):
        raise PageSizeInvalid(text)
    return int(text)


def cut_page(entries: Iterable[str], query: PageQuery, max_entries: int) -> Page:
    """Cut the page that `query` asks for, of at most `max_entries` (0 = no bound).

    A larger `n` is lowered to the bound rather than refused: `Link` tells the client of the rest.
    """
    ordered = sorted(
        map(str, entries)
    )  # the engine's names are subclasses of str, which msgspec refuses
    start = bisect_right(ordered, query.last) if query.last else 0
    limits = [limit for limit in (query.n, max_entries or None) if limit is not None]
    n = min(limits, default=len(ordered))
    page = tuple(ordered[start : start + n])
    # An empty page (n=0) has no last entry to go on from, so it is the end.
    return Page(page, bool(page) and start + n < len(ordered), n)


def link_to_next(path: str, page: Page, query: PageQuery) -> str | None:
    """Make the `Link` value, relative to the host, keeping path and `ns` as asked."""
    if not page.has_more:
        return None
    parameters = {"n": str(page.n), "last": page.entries[-1]}
    if query.namespace:
        parameters["ns"] = query.namespace
    return f'<{quote(path)}?{urlencode(parameters, quote_via=quote)}>; rel="next"'
