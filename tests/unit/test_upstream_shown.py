"""What of upstream's words is shown: places, and nothing that opens them."""

import pytest

from engine.upstream.shown import show_fault, show_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://cdn.test/a/b?X-Amz-Signature=s", "'https://cdn.test/a/b'"),
        ("https://cdn.test/a#s", "'https://cdn.test/a'"),
        ("https://ann:s@cdn.test/a", "'https://cdn.test/a'"),
        ("https://ann:s@t@[bad/", "'https://[bad/'"),
        ("ann:s@cdn.test", "'cdn.test'"),
        ("//ann:s@cdn.test", "'//cdn.test'"),
        ("?X-Amz-Signature=s", "''"),
        ("one\ntwo\x07", "'one\\ntwo\\x07'"),
        ("a" * 500, repr("a" * 200)),
    ],
)
def test_an_url_is_shown_without_what_may_be_secret(text: str, shown: str) -> None:
    assert show_url(text) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Invalid header token:\n\n  b'Loca tion: x?sig=s'\n   ^", "Invalid header token"),
        ("Got more than 8190 bytes when reading b'Location?sig=s", "Got more than 8190 bytes when"),
        ('Bad status line b"HTTP?sig=s"', "Bad status line"),
        ("Too many headers", "Too many headers"),
    ],
)
def test_a_parsers_complaint_is_shown_without_what_it_quotes(message: str, shown: str) -> None:
    assert show_fault(message).startswith(shown)
    assert "sig=s" not in show_fault(message)
