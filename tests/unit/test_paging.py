"""Pages of sorted lists."""

from urllib.parse import parse_qs, urlsplit

import pytest

from server.paging import Page, PageQuery, cut_page, link_to_next, parse_size
from server.refusals import PageSizeInvalid

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("query", "max_entries", "page"),
    [
        (PageQuery(), 0, Page(NAMES, False, 4)),
        (PageQuery(n=2), 0, Page(("a", "b"), True, 2)),
        (PageQuery(n=2, last="b"), 0, Page(("c", "d"), False, 2)),
        (PageQuery(n=4), 0, Page(NAMES, False, 4)),
        (PageQuery(n=0), 0, Page((), False, 0)),
        (PageQuery(n=10), 3, Page(("a", "b", "c"), True, 3)),
        (PageQuery(), 3, Page(("a", "b", "c"), True, 3)),
        (PageQuery(last="bb"), 0, Page(("c", "d"), False, 4)),
        (PageQuery(last="d"), 0, Page((), False, 4)),
        (PageQuery(n=1, last="z"), 0, Page((), False, 1)),
    ],
)
def test_a_page_starts_behind_last_and_has_at_most_n(
    query: PageQuery, max_entries: int, page: Page
) -> None:
    assert cut_page(reversed(NAMES), query, max_entries) == page


@pytest.mark.parametrize("text", ["-1", "a", "1.5", " 1", "1 ", "+1", "0x1", "²", "9" * 5_000])
def test_a_size_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(PageSizeInvalid):
        parse_size(text)


def test_a_size_is_read_and_may_be_missing() -> None:
    assert parse_size("0") == 0
    assert parse_size("250") == 250
    assert parse_size("") is None


def test_following_links_visits_each_entry_once() -> None:
    names = [f"v{number}" for number in range(25)]
    query, seen = PageQuery(n=4, namespace="ghcr.io"), list[str]()
    while True:
        page = cut_page(names, query, 0)
        seen += page.entries
        link = link_to_next("/v2/ghcr.io/org/app/tags/list", page, query)
        if link is None:
            break
        target, _, relation = link.partition("; ")
        assert relation == 'rel="next"'
        parts = urlsplit(target.strip("<>"))
        assert parts.path == "/v2/ghcr.io/org/app/tags/list"
        given = parse_qs(parts.query)
        assert given["ns"] == ["ghcr.io"]
        query = PageQuery(int(given["n"][0]), given["last"][0], given["ns"][0])
    assert seen == sorted(names)


def test_a_link_cannot_be_broken_out_of() -> None:
    page = Page(('x"> \r\n&y',), True, 1)
    link = link_to_next("/v2/a/tags/list", page, PageQuery())
    assert link == '</v2/a/tags/list?n=1&last=x%22%3E%20%0D%0A%26y>; rel="next"'
