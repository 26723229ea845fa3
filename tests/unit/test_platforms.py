"""Platforms, and what of an image index is for them."""

import json

import pytest

from engine.platforms import (
    Platform,
    PlatformMissing,
    choose_manifests,
    own_platform,
    parse_platform,
)
from tests.fakes.upstream_content import IMAGE_INDEX, digest_of

NAMES = ("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "unknown/unknown")


def image_index(*platforms: str | None) -> bytes:
    manifests = []
    for number, text in enumerate(platforms):
        entry: dict[str, object] = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest_of(b"%d" % number),
            "size": 1,
        }
        if text is not None:
            keys = ("os", "architecture", "variant")
            entry["platform"] = dict(zip(keys, text.split("/"), strict=False))
        manifests.append(entry)
    return json.dumps({"mediaType": IMAGE_INDEX, "manifests": manifests}).encode()


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["linux/amd64"], [0]),
        (["linux/arm64"], [1]),
        (["linux/arm64/v8"], [1]),
        (["linux/arm"], [3]),
        (["linux/arm/v6"], [2]),
        (["linux/amd64", "linux/arm/v7"], [0, 3]),
        ([], [0, 1, 2, 3, 4]),
    ],
)
def test_what_is_made_for_a_platform_is_chosen(wanted: list[str], chosen: list[int]) -> None:
    found = choose_manifests(image_index(*NAMES), [parse_platform(text) for text in wanted])
    assert found == [digest_of(b"%d" % number) for number in chosen]


def test_what_names_no_platform_is_for_all() -> None:
    found = choose_manifests(image_index(None, "linux/amd64"), [Platform("linux", "s390x")])
    assert found == [digest_of(b"0")]


def test_a_platform_that_is_missing_is_named_with_those_there_are() -> None:
    with pytest.raises(PlatformMissing, match=r"not made for linux/s390x; it has linux/amd64, "):
        choose_manifests(image_index(*NAMES), [Platform("linux", "s390x")])


@pytest.mark.parametrize("body", [b"{}", b"not json", b'{"config": {}, "layers": []}'])
def test_what_is_no_image_index_names_nothing(body: bytes) -> None:
    assert choose_manifests(body, [Platform("linux", "amd64")]) == []


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/amd 64", "linux//v8"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no platform"):
        parse_platform(text)


def test_a_platform_reads_as_it_is_written() -> None:
    for text in NAMES:
        assert str(parse_platform(text)) == text


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
        ("", "linux/amd64"),
    ],
)
def test_this_machines_platform_has_the_name_that_images_use(
    machine: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert str(own_platform()) == expected
