"""Heads: what they say of content, and that nothing can break out of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hot import Content
from engine.names import Digest
from server.conditional import Part
from server.response import build_fields, build_head, content_range, namespace_line, prepare

DIGEST = Digest("sha256:" + "ab" * 32)


def test_a_head_is_a_status_line_and_fields_without_an_end() -> None:
    assert build_head(206, [("A", "1"), ("B", "2")]) == (
        b"HTTP/1.1 206 Partial Content\r\nA: 1\r\nB: 2\r\n"
    )


def test_a_blob_is_octets_that_never_change() -> None:
    prepared = prepare(Content(DIGEST, 1234, "", 0.0))
    assert prepared.etag == f'"{DIGEST}"'.encode()
    assert prepared.head_whole(1234).decode().split("\r\n") == [
        "HTTP/1.1 200 OK",
        "Content-Type: application/octet-stream",
        f"Docker-Content-Digest: {DIGEST}",
        f'ETag: "{DIGEST}"',
        "Cache-Control: max-age=31536000, immutable",
        "Accept-Ranges: bytes",
        "Content-Length: 1234",
        "",
    ]


def test_a_manifest_has_the_type_it_is_stored_with() -> None:
    prepared = prepare(Content(DIGEST, 5, "application/vnd.example+json", 0.0))
    assert prepared.head_whole(5).decode().split("\r\n") == [
        "HTTP/1.1 200 OK",
        "Content-Type: application/vnd.example+json",
        f"Docker-Content-Digest: {DIGEST}",
        f'ETag: "{DIGEST}"',
        "Content-Length: 5",
        "",
    ]


@pytest.mark.parametrize("media_type", ["a/b\r\nX: y", "a/b\x00", "é/b", " ", "x" * 300])
def test_a_media_type_that_is_none_is_octets(media_type: str) -> None:
    head = prepare(Content(DIGEST, 5, media_type, 0.0)).head_whole(5)
    assert b"Content-Type: application/octet-stream\r\n" in head


@given(st.text())
def test_no_value_can_end_its_line(value: str) -> None:
    line = build_fields([("Name", value)])
    assert line.count(b"\r\n") == 1
    assert line.endswith(b"\r\n")
    assert all(0x20 <= byte <= 0x7E for byte in line[:-2])


def test_the_namespace_is_told_only_where_it_chose() -> None:
    assert namespace_line("ghcr.io") == b"OCI-Namespace: ghcr.io\r\n"
    assert namespace_line("") == b""


def test_the_head_of_a_part_says_which_and_how_long() -> None:
    prepared = prepare(Content(DIGEST, 1234, "", 0.0))
    whole = prepared.head_whole(1234).decode().split("\r\n")
    part = prepared.head_part(Part(200, 1234), 1234).decode().split("\r\n")
    assert part[0] == "HTTP/1.1 206 Partial Content"
    assert part[1:-3] == whole[1:-2]
    assert part[-3:] == ["Content-Range: bytes 200-1233/1234", "Content-Length: 1034", ""]


def test_content_range_is_inclusive() -> None:
    assert content_range(Part(0, 1), 10) == ("Content-Range", "bytes 0-0/10")
    assert content_range(Part(5, 10), 10) == ("Content-Range", "bytes 5-9/10")
