"""What the texts in a configuration mean, and what each parser refuses."""

from collections.abc import Callable

import pytest

from server.config_tree import InvalidValue
from server.config_values import (
    Share,
    format_duration,
    format_fraction,
    one_of,
    parse_address,
    parse_bool,
    parse_count,
    parse_duration_s,
    parse_fraction,
    parse_header_name,
    parse_header_value,
    parse_int,
    parse_metrics_path,
    parse_namespace,
    parse_path_prefix,
    parse_pin,
    parse_share,
    parse_size_bytes,
    parse_url,
)
from server.settings import Listener


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("168h", 604800.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("10us", 1e-05),
        ("10µs", 1e-05),
        ("10\u03bcs", 1e-05),
        ("7ns", 7e-09),
        ("+5s", 5.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("5000000000", 5.0),  # a bare number is nanoseconds
        ("5", 5e-09),
        ("9223372036854775807", 9223372036.854775807),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (604800, "168h"), (5400, "90m"), (25, "25s"), (0.25, "250ms"), (1e-9, "1ns")],
)
def test_durations_are_written_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1234", 1234),
        ("12b", 12),
        ("50MiB", 50 * 1024**2),
        ("50Mi", 50 * 1024**2),
        ("50 mib", 50 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("100GB", 100 * 1000**3),
        ("2kB", 2000),
        ("1TiB", 1024**4),
    ],
)
def test_sizes_know_both_kinds_of_units(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("80%", Share(None, 0.8)),
        ("12.5 %", Share(None, 0.125)),
        ("0%", Share(None, 0.0)),
        ("100%", Share(None, 1.0)),
        ("100GB", Share(100 * 1000**3, None)),
        ("1000", Share(1000, None)),
    ],
)
def test_a_share_is_a_percentage_or_a_size(text: str, share: Share) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.8, "80%"), (0.125, "12.5%"), (0.0, "0%"), (1.0, "100%")]
)
def test_fractions_are_written_as_percentages(fraction: float, text: str) -> None:
    assert format_fraction(fraction) == text


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        (":5000", Listener("", 5000)),
        ("127.0.0.1:0", Listener("127.0.0.1", 0)),
        ("localhost:5001", Listener("localhost", 5001)),
        ("[::1]:5000", Listener("::1", 5000)),
        ("unix:/run/moorage.sock", Listener(path="/run/moorage.sock")),
    ],
)
def test_addresses_are_hosts_with_ports_or_sockets(text: str, listener: Listener) -> None:
    assert parse_address(text) == listener
    assert parse_address(str(listener)) == listener


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://registry-1.docker.io", "https://registry-1.docker.io"),
        ("https://registry-1.docker.io/", "https://registry-1.docker.io"),
        ("http://127.0.0.1:5000/a/b/", "http://127.0.0.1:5000/a/b"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("HTTPS://GHCR.IO", "https://ghcr.io"),
        ("http://registry", "http://registry"),
    ],
)
def test_urls_lose_their_trailing_slash(text: str, url: str) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "prefix"), [("/", "/"), ("/a/b/", "/a/b/"), ("a", "/a/"), ("/a", "/a/")]
)
def test_a_prefix_has_a_slash_at_both_ends(text: str, prefix: str) -> None:
    assert parse_path_prefix(text) == prefix


def test_switches_are_yaml_booleans() -> None:
    assert [parse_bool(text) for text in ("true", "True", "yes", "on", "y")] == [True] * 5
    assert [parse_bool(text) for text in ("false", "FALSE", "no", "off", "n")] == [False] * 5


def test_namespaces_are_lower_cased() -> None:
    assert parse_namespace("GHCR.io:443") == "ghcr.io:443"
    assert parse_namespace("localhost") == "localhost"


def test_numbers_choices_and_names_are_given_as_they_are() -> None:
    assert (parse_int("-3"), parse_count("32")) == (-3, 32)
    assert one_of("warn", "info")("WARN") == "warn"
    assert parse_pin("docker.io/library/python:3.*") == "docker.io/library/python:3.*"
    assert parse_pin("127.0.0.1:5000/*/x:[0-9]?") == "127.0.0.1:5000/*/x:[0-9]?"
    assert parse_header_name("X-Content-Type-Options") == "X-Content-Type-Options"
    assert parse_header_value("max-age=1; x") == "max-age=1; x"
    assert parse_metrics_path("/metrics") == "/metrics"


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_duration_s, text) for text in ("", "5d", "-5s", "-1", "1h 30m", "s", ".s", "5.")),
        *(
            (parse_duration_s, text)
            for text in ("1e3s", "٣s", "9223372036854775808", "1h30", "x5s")
        ),
        *(
            (parse_size_bytes, text)
            for text in ("", "-1", "9EB", "8192PiB", "5M", "5 Mb b", "1e6", "80%", "MiB", "٣")
        ),
        *((parse_fraction, text) for text in ("", "95", "0.95", "101%", "-1%", "%", "1e1%")),
        *((parse_share, text) for text in ("", "101%", "-1GB", "lots")),
        *((parse_bool, text) for text in ("", "1", "0", "enabled", "tru")),
        *((parse_int, text) for text in ("", "1.5", "0x10", "1_000", "٣", "9" * 5000)),
        *((parse_count, text) for text in ("0", "-1", "many")),
        (one_of("tcp", "unix"), "udp"),
        *((parse_address, text) for text in ("", "5000", "127.0.0.1", "host:", ":65536", ":http")),
        *((parse_address, text) for text in ("::1:5000", "[::1]", "a b:1", "http://h:1", "unix:")),
        *((parse_address, text) for text in (":٣", ":-1", "[[::1]]:5000", "[::1:5000", "a,b:1/")),
        *((parse_url, text) for text in ("", "registry-1.docker.io", "ftp://host", "https://")),
        *((parse_url, text) for text in ("https://host?", "https://host#f", "https://host?q=1")),
        *((parse_url, text) for text in ("https://user@host", "https://u:p@host", "https://@host")),
        *(
            (parse_url, text)
            for text in ("https://host:port", "https://host:0", "https://host:99999")
        ),
        *((parse_url, text) for text in ("https://ho st", "https://hôst", "https://host/\n")),
        *((parse_url, text) for text in ("https://[::1", "//host", "https:host", "https://ho,st")),
        *((parse_namespace, text) for text in ("", "library", "https://ghcr.io", "ghcr.io/org")),
        *((parse_namespace, text) for text in (".ghcr.io", "ghcr.io.", "ghcr.io:", "a b.c")),
        *((parse_header_name, text) for text in ("", "X Y", "X:", "Content-Length", "DATE", "é")),
        *((parse_header_value, text) for text in ("", " x", "x ", "a\r\nb", "a\x00", "Ω")),
        *((parse_path_prefix, text) for text in ("/a b/", "/a//b/", "/a?b/", "/é/")),
        *((parse_metrics_path, text) for text in ("", "metrics", "/", "/a b", "/m?x")),
        *((parse_pin, text) for text in ("", "docker.io/library/python", "python:3", "a/b:c d")),
        *((parse_pin, text) for text in ("host:5000/library/python", "a/b:", ":c")),
    ],
)
def test_anything_else_is_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    assert caught.value.expected


@pytest.mark.parametrize(
    "text", ["https://bob:hunter2@host", "https://bob:hun?ter2@host", "https://host?token=hunter2"]
)
def test_a_refused_url_is_not_repeated_with_its_secrets(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_url(text)
    assert caught.value.found is not None
    assert "hun" not in caught.value.found
    assert "bob" not in caught.value.found
