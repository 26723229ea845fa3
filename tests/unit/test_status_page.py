"""The status page's document: whole, and allowed to run nothing but itself."""

import re
from base64 import b64encode
from hashlib import sha256

from server.status_page import make_policy, read_page


def test_the_document_is_one_piece_and_loads_nothing() -> None:
    page = read_page().decode()
    assert "<script></script>" not in page
    assert "<style></style>" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.search(r"\sstyle=|\son\w+=", page.partition("<script>")[0])


def test_no_markup_is_ever_made_of_data() -> None:
    page = read_page().decode()
    for means in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert means not in page


def test_the_policy_allows_what_stands_in_the_document_and_nothing_else() -> None:
    policy = make_policy(b"<style>a{}</style><script>b()</script><p>script</p>")
    style = b64encode(sha256(b"a{}").digest()).decode()
    script = b64encode(sha256(b"b()").digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    assert "unsafe" not in make_policy(read_page())
