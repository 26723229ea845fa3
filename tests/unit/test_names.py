"""The grammar of names."""

import pytest

from engine.errors import InvalidDigest, InvalidReference, InvalidRepository
from engine.names import Digest, Repository, Tag, parse_reference

SHA256 = "sha256:" + "0af" * 21 + "9"


@pytest.mark.parametrize(
    "text", ["busybox", "library/busybox", "a/b/c", "a.b/c_d/e__f/g---h", "a/blobs/manifests", "0"]
)
def test_repository_names_of_the_grammar_are_taken(text: str) -> None:
    assert Repository.parse(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "A", "a//b", "/a", "a/", "a..b", "a___b", "-a", "a-", "../a", "a/..", "a\n", "ä", "a b",
     "a\0", "a" * 256],
)  # fmt: skip
def test_other_repository_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidRepository):
        Repository.parse(text)


@pytest.mark.parametrize("text", ["latest", "1", "_x", "V1.2-rc_3", "a" * 128])
def test_tags_of_the_grammar_are_taken(text: str) -> None:
    assert parse_reference(text) == Tag(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a" * 129, "a/b", "a b", "a\n", "ü"])
def test_other_tags_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Tag.parse(text)


@pytest.mark.parametrize("text", [SHA256, "sha384:" + "a" * 96, "sha512:" + "0" * 128])
def test_digests_that_can_be_verified_are_taken(text: str) -> None:
    digest = parse_reference(text)
    assert isinstance(digest, Digest)
    assert f"{digest.algorithm}:{digest.hex}" == text


@pytest.mark.parametrize(
    "text",
    ["sha256:", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha256:" + "g" * 64,
     "md5:" + "a" * 32, "sha256:" + "a" * 64 + "\n", "sha256:../" + "a" * 61, "sha512:" + "a" * 64],
)  # fmt: skip
def test_other_digests_are_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_reference(text)
