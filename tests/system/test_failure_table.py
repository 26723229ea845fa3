"""Every cell of the table of failures, over HTTP, by a mirror that is a process of its own.

Upstream's 404 is a 404; all else it does wrong is hidden by what is here, or told as what it is.
"""

import re
from collections.abc import Iterator

import pytest

from tests.fakes.upstream import Fault
from tests.system.failure_cases import COLD, WARM_DIGESTS, WARM_TAGS, WORDS, Ask, Cell
from tests.system.failure_table import Found, Table, fill_table
from tests.system.lab import message_of
from tests.system.raw import Answer

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """All cells, asked at once: it takes as long as the longest deadline."""
    with fill_table(tmp_path_factory.mktemp("table")) as filled:
        yield filled


def assert_is_told(cell: Cell, found: Found) -> None:
    """The status, the code, the cause, and when to come back."""
    answer, cause = found.answer, cell.cause
    assert answer.status == cause.status
    assert answer.headers["content-type"] == "application/json"
    if cause.retries_after_s is None:
        assert "retry-after" not in answer.headers
    else:
        assert 0 < int(answer.headers["retry-after"]) <= cause.retries_after_s
    if cell.ask.method == "HEAD":
        assert answer.body == b""
        assert int(answer.headers["content-length"]) > 0
    else:
        assert answer.code == (cause.code or code_of_absence(cell))
        assert re.search(cause.says, message_of(answer))
        if cell.ask.is_asked_by_get and cause.fault and cause.fault.status:
            assert WORDS in message_of(answer)


def code_of_absence(cell: Cell) -> str:
    return "BLOB_UNKNOWN" if cell.ask.is_blob else "MANIFEST_UNKNOWN"


def assert_claims_nothing(answer: Answer) -> None:
    """No challenge, no digest, no validator: nothing that a client could take for content."""
    for name in ("www-authenticate", "docker-content-digest", "etag", "warning", "age"):
        assert name not in answer.headers


@pytest.mark.parametrize("cell", COLD, ids=lambda cell: cell.name)
def test_who_asks_for_what_is_not_here_is_told_why(table: Table, cell: Cell) -> None:
    found = table.found[cell.name]
    assert_is_told(cell, found)
    assert_claims_nothing(found.answer)
    assert not found.answer.is_cut
    assert found.answer.headers["cache-status"].startswith("moorage; fwd=uri-miss; ")
    line = table.lab.wait_for_access(found.targets.asked, cell.ask.method)
    assert int(line["status"]) == cell.cause.status
    assert re.search(cell.cause.says, line["cause"])
    if cell.cause.status >= 500 or cell.cause.status == 429:
        table.lab.mirror.child.wait_for(
            rf"warn request failed status={cell.cause.status} upstream={cell.name} .*"
            rf"({cell.cause.says})"
        )


@pytest.mark.parametrize("cell", WARM_TAGS, ids=lambda cell: cell.name)
def test_a_tag_that_is_here_is_served_stale_unless_upstream_says_it_is_gone(
    table: Table, cell: Cell
) -> None:
    found = table.found[cell.name]
    if cell.cause.is_absence:
        assert_is_told(cell, found)
        assert_claims_nothing(found.answer)
        return
    answer, image = found.answer, found.targets.image
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == image.manifest
    assert answer.headers["content-length"] == str(len(image.body))
    assert answer.body == (b"" if cell.ask.method == "HEAD" else image.body)
    assert answer.headers["cache-status"].startswith("moorage; fwd=stale; ")
    assert answer.headers["cache-status"].endswith("; detail=served-stale")
    assert re.fullmatch(rf'299 - ".*({cell.cause.says}).*"', answer.headers["warning"])
    assert int(answer.headers["age"]) >= 0
    table.lab.mirror.child.wait_for(
        rf"warn stale served location={cell.name}/{cell.repository} tag=1 cause=.*"
        rf"({cell.cause.says})"
    )


@pytest.mark.parametrize("cell", WARM_DIGESTS, ids=lambda cell: cell.name)
def test_what_is_here_by_digest_is_served_and_nobody_is_asked(table: Table, cell: Cell) -> None:
    found = table.found[cell.name]
    answer, image = found.answer, found.targets.image
    digest = image.layers[0] if cell.ask.is_blob else image.manifest
    assert (answer.status, answer.is_cut) == (200, False)
    assert answer.headers["docker-content-digest"] == digest
    assert answer.headers["cache-status"] == "moorage; hit"
    assert "warning" not in answer.headers
    if cell.ask.method == "GET":
        assert answer.digest == digest
    assert found.asked == []


@pytest.mark.parametrize(
    "cell",
    [cell for cell in COLD + WARM_TAGS if cell.cause.fault and cell.cause.name != "silent"],
    ids=lambda cell: cell.name,
)
def test_only_what_may_pass_is_asked_again(table: Table, cell: Cell) -> None:
    asked = [seen.method for seen in table.found[cell.name].asked]
    if cell.cause.is_transient:
        assert len(asked) > 1
    elif cell.ask.is_by_tag and cell.cause.status in (403, 502):
        assert asked == ["HEAD", "GET"], "some registries refuse a HEAD and answer the GET"
    else:
        assert len(asked) == 1


def test_who_has_a_copy_waits_least_and_a_blob_is_waited_for_most(table: Table) -> None:
    def times_s(cells: list[Cell], *, is_get_of_blob: bool) -> list[float]:
        return [
            table.found[cell.name].took_s
            for cell in cells
            if cell.cause.is_transient and (cell.ask is Ask.BLOB) is is_get_of_blob
        ]

    stale = times_s(WARM_TAGS, is_get_of_blob=False)
    small = times_s(COLD, is_get_of_blob=False)
    blobs = times_s(COLD, is_get_of_blob=True)
    assert max(stale) < min(small)
    assert max(small) < min(blobs)


def test_a_tag_that_upstream_dropped_is_not_kept_for_bad_times(table: Table) -> None:
    found = table.found["404.tag.warm"]
    cell = found.targets.cell
    # The oldest rule counts, so the one that said 404 has to go first.
    rules = table.lab.upstream.rules
    rules.remove(next(rule for rule in rules if rule.repository == cell.repository))
    table.lab.upstream.fail(Fault(status=403), repository=cell.repository, times=None)
    assert table.lab.ask(f"{found.targets.tag}?ns={cell.name}").status == 403


def test_no_credential_of_a_client_is_logged_or_sent_on(table: Table) -> None:
    assert table.lab.find_leaks() == []
