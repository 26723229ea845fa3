"""What a manifest names."""

import json

import pytest

from engine.descriptor import OCI_INDEX, OCI_MANIFEST, find_named, guess_media_type, is_json_object

A, B = "sha256:" + "a" * 64, "sha512:" + "b" * 128


def test_config_layers_and_children_are_named_once_each() -> None:
    body = {"config": {"digest": A, "size": 2, "mediaType": "c"}, "layers": [_of(B), _of(B)]}
    named = find_named(json.dumps(body).encode())
    assert [(d.digest, d.size_bytes, d.is_manifest) for d in named] == [
        (A, 2, False),
        (B, 9, False),
    ]
    (child,) = find_named(json.dumps({"manifests": [_of(A)]}).encode())
    assert child.is_manifest


def test_foreign_layers_are_not_named() -> None:
    body = {"layers": [_of(A) | {"urls": ["https://elsewhere.example/layer"]}]}
    assert find_named(json.dumps(body).encode()) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b'{"layers":{}}', b'{"layers":[{"digest":"sha256:../../x","size":1}]}',
     b'{"layers":[{"digest":"' + A.encode() + b'"}]}', b"[" * 100_000,
     b'{"mediaType":"\xff"}', b'{"layers":[{"digest":"\xff","size":1}]}'],
)  # fmt: skip
def test_what_is_not_understood_names_nothing(body: bytes) -> None:
    assert find_named(body) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"mediaType":"a/b"}', "a/b"),
        (json.dumps({"manifests": [{"digest": A}]}).encode(), OCI_INDEX),
        (json.dumps({"config": {"digest": A}}).encode(), OCI_MANIFEST),
        (b"{}", "application/octet-stream"),
        (b"x", "application/octet-stream"),
    ],
)
def test_a_type_is_guessed_from_the_manifest_itself(body: bytes, expected: str) -> None:
    assert guess_media_type(body) == expected


@pytest.mark.parametrize(
    ("body", "is_object"),
    [(b"{}", True), (b' {"a": [1]}\n', True), (b"", False), (b"[]", False), (b"<p>", False),
     (b'{"a":1', False), (b'{"a":' * 100_000, False), (b'{"\xff":1}', False)],
)  # fmt: skip
def test_a_manifest_is_a_json_object(body: bytes, is_object: bool) -> None:
    assert is_json_object(body) is is_object


def _of(digest: str) -> dict[str, object]:
    return {"digest": digest, "size": 9, "mediaType": "l"}
