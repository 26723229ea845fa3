"""Statuses and headers of upstream, read."""

from email.utils import formatdate

import pytest
from multidict import CIMultiDict
from yarl import URL

from engine.errors import (
    CacheError,
    ManifestUnknown,
    UpstreamDenied,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from engine.upstream.kinds import RateLimit
from engine.upstream.reply import (
    content_length,
    digest_header,
    error_of,
    media_type,
    next_hop,
    next_page,
    origin_of,
    rate_limit,
    reason_of,
    retry_after_s,
)

BASE = URL("https://registry.test/v2/a/tags/list?n=2")


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("GET", 404, ManifestUnknown),
        ("GET", 401, UpstreamDenied),
        ("GET", 403, UpstreamDenied),
        ("GET", 408, UpstreamUnavailable),
        ("GET", 500, UpstreamUnavailable),
        ("GET", 501, UpstreamUnavailable),
        ("HEAD", 501, UpstreamProtocolError),
        ("HEAD", 405, UpstreamProtocolError),
        ("HEAD", 503, UpstreamUnavailable),
        ("GET", 999, UpstreamUnavailable),
        ("GET", 400, UpstreamProtocolError),
        ("GET", 416, UpstreamProtocolError),
        ("GET", 304, UpstreamProtocolError),
        ("GET", 100, UpstreamProtocolError),
    ],
)
def test_each_status_is_what_it_means(method: str, status: int, expected: type[CacheError]) -> None:
    error = error_of(status, "registry.test", b"", method=method, not_found=ManifestUnknown)
    assert type(error) is expected
    assert str(error) == f"registry.test answered {status}"


def test_a_404_where_nothing_can_be_missing_is_a_protocol_error() -> None:
    error = error_of(404, "auth.test", b"", method="GET", not_found=None)
    assert type(error) is UpstreamProtocolError


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"errors":[{"code":"DENIED","message":"pay"}]}', "DENIED: pay"),
        (b'{"errors":[{"code":"DENIED"},{"code":"X"}]}', "DENIED"),
        (b'{"errors":[{"message":"a\\r\\nb\\u0000c"}]}', "a b c"),
        (b'{"errors":[{"message":"' + b"x" * 1000 + b'"}]}', "x" * 300),
        (b'{"errors":[]}', ""),
        (b'{"errors":"none"}', ""),
        (b"{}", ""),
        (b"<html>", ""),
        (b"", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_upstreams_words_are_one_safe_line(body: bytes, expected: str) -> None:
    assert reason_of(body) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("\x1f5", 5.0),
        ("\x1f" * 9, None),
        (formatdate(1_000_030, usegmt=True), 30.0),
        (formatdate(999_970, usegmt=True), 0.0),
        ("Mon, 12 Jan 1970 13:47:10 -0000", 30.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("99999999999999999999", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, now_unix=1_000_000.0) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"ratelimit-limit": "100;w=21600"}, RateLimit(100, None, 21600)),
        ({"ratelimit-remaining": "0;w=60"}, RateLimit(None, 0, 60)),
        (
            {"ratelimit-limit": "100", "RateLimit-Remaining": "7 ; w=9"},
            RateLimit(100, 7, 9),
        ),
        ({"ratelimit-limit": "many"}, None),
        ({"ratelimit-limit": "9" * 5_000}, None),
        ({"ratelimit-remaining": "1;w=" + "9" * 5_000}, RateLimit(None, 1, None)),
    ],
)
def test_rate_limits_are_read(headers: dict[str, str], expected: RateLimit | None) -> None:
    assert rate_limit(CIMultiDict(headers)) == expected


def test_headers_that_make_no_sense_count_as_missing() -> None:
    headers = {"Docker-Content-Digest": "sha256:xyz", "Content-Length": "-1", "Content-Type": ""}
    assert (digest_header(headers), content_length(headers), media_type(headers)) == (
        None,
        None,
        None,
    )


def test_a_media_type_loses_its_parameters() -> None:
    assert media_type({"Content-Type": "application/json; charset=utf-8"}) == "application/json"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('</v2/a/tags/list?last=b&n=2>; rel="next"', "/v2/a/tags/list?last=b&n=2"),
        ("<?last=b>; rel=next", "/v2/a/tags/list?last=b"),
        ('<https://registry.test/x>; rel="next"', "/x"),
        ('<https://registry.test:443/x>; rel="next"', "/x"),
        ('</p>; rel="prev", </n>; title="a, b"; rel="next"', "/n"),
        ('</p>; rel="prev"', None),
        ("garbage", None),
        ("", None),
    ],
)
def test_the_next_page_is_found(link: str, expected: str | None) -> None:
    found = next_page(BASE, {"Link": link})
    assert (None if found is None else found.raw_path_qs) == expected


@pytest.mark.parametrize(
    "target", ["https://evil.test/x", "https://registry.test:8443/x", "http://registry.test/x"]
)
def test_a_next_page_elsewhere_is_refused(target: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        next_page(BASE, {"Link": f'<{target}>; rel="next"'})


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/elsewhere", "https://registry.test/elsewhere"),
        ("other", "https://registry.test/v2/a/tags/other"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("https://cdn.test/a%2Fb?sig=%2B%2f%3D+x", "https://cdn.test/a%2Fb?sig=%2B%2f%3D+x"),
        ("https://user:secret@cdn.test/x", "https://cdn.test/x"),
        ("https://cdn.test/x#fragment", "https://cdn.test/x"),
        ("https://cdn.test/a b", "https://cdn.test/a%20b"),
    ],
)
def test_a_location_is_followed_as_it_is_written(location: str, expected: str) -> None:
    assert str(next_hop(BASE, location)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.test/x",
        "ftp://cdn.test/x",
        "file:///etc/passwd",
        "https://[/x",
        "https://cdn.test:99999/x",
        "data:,x",
        "/x\x7f",
        "/x\ty",
        "http://xn--/",
        "https://a.xn--b.test/",
    ],
)
def test_a_location_that_is_not_safe_is_refused(location: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        next_hop(BASE, location)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("https://a.test/x", "https://a.test:443/y", True),
        ("https://A.test", "HTTPS://a.TEST/", True),
        ("http://a.test", "https://a.test", False),
        ("https://a.test", "https://b.test", False),
        ("https://a.test", "https://a.test:8443", False),
        ("http://a.test:443", "https://a.test:443", False),
    ],
)
def test_origins_are_scheme_host_and_port(one: str, other: str, expected: bool) -> None:
    same = origin_of(URL(one, encoded=True)) == origin_of(URL(other, encoded=True))
    assert same is expected


def test_plain_http_may_lead_to_https() -> None:
    assert next_hop(URL("http://registry.test/"), "https://cdn.test/x").scheme == "https"
