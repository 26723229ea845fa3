"""Token replies: lifetimes by the token specification, secrets in no message."""

from datetime import UTC, datetime

import msgspec
import pytest

from engine.errors import UpstreamProtocolError
from engine.upstream.tokens import Token, read_token

NOW, UNIX = 1000.0, 1_700_000_000.0


def read(**reply: object) -> Token:
    return read_token(msgspec.json.encode(reply), "auth.test", now=NOW, now_unix=UNIX)


def iso(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("expires_in", "lasts_s"),
    [(None, 54.0), (1, 54.0), (60, 54.0), (300, 270.0), (3600, 3570.0), ("300", 270.0)],
)
def test_a_token_is_renewed_a_tenth_early_and_lives_a_minute_at_least(
    expires_in: object, lasts_s: float
) -> None:
    assert read(token="t", expires_in=expires_in).renew_at == NOW + lasts_s


@pytest.mark.parametrize(
    ("issued_at", "lasts_s"),
    [
        (iso(UNIX), 270.0),
        (iso(UNIX - 100), 170.0),
        (iso(UNIX - 100).replace("Z", ".123456789Z"), 170.123456),
        (iso(UNIX + 100), 270.0),  # their clock is ahead
        (iso(UNIX - 10_000), 270.0),  # or behind
        ("yesterday", 270.0),
        (datetime.fromtimestamp(UNIX - 100, UTC).replace(tzinfo=None).isoformat(), 170.0),
    ],
)
def test_a_tokens_age_counts_unless_a_clock_is_wrong(issued_at: str, lasts_s: float) -> None:
    token = read(token="t", expires_in=300, issued_at=issued_at)
    assert token.renew_at == pytest.approx(NOW + lasts_s, abs=1e-3)


def test_either_name_of_the_token_will_do() -> None:
    assert read(token="a", access_token="b").text == "a"
    assert read(access_token="b").text == "b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token":""}',
        b'{"token":7}',
        b'{"token":"a\\r\\nX: y"}',
        b'{"token":"\xc3\xa9"}',
        b'{"access_token":"s3cret","expires_in":{}}',
    ],
)
def test_what_is_no_token_is_a_protocol_error_that_quotes_nothing(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        read_token(body, "auth.test", now=NOW, now_unix=UNIX)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_shows_itself_to_nobody() -> None:
    assert "s3cret" not in repr(Token("s3cret", 0.0))
