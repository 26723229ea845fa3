"""The images of the system tests are what they claim to be, so a failed pull is the mirror's."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest

from tests.fakes.images import Image, Layer, layer_of, sha256_of
from tests.fakes.images_catalogue import BIG_LAYER_BYTES, Catalogue, catalogue

SMALL = ["busy", "multi", "deep", "private", "pair", "peer"]


def small_images() -> list[Image]:
    return [getattr(catalogue(), name) for name in SMALL]


def archive_of(layer: Layer) -> bytes:
    return gzip.decompress(layer.blob.data) if layer.is_gzipped else layer.blob.data


def test_equal_files_give_equal_layers() -> None:
    files = {"a/": b"", "a/b": b"text"}
    assert layer_of(files) == layer_of(dict(reversed(files.items())))
    assert layer_of(files) != layer_of(files | {"a/b": b"other"})


@pytest.mark.parametrize("name", SMALL)
def test_configurations_name_the_archives_in_order(name: str) -> None:
    image: Image = getattr(catalogue(), name)
    host = image.host_manifest
    assert host.config is not None
    unpacked = [sha256_of(archive_of(layer)) for layer in host.layers]
    assert json.loads(host.config.data)["rootfs"]["diff_ids"] == unpacked
    for layer in host.layers:
        with tarfile.open(fileobj=io.BytesIO(archive_of(layer))) as archive:
            assert archive.getmembers()


def test_a_built_image_is_the_same_when_built_again() -> None:
    assert Catalogue().busy == catalogue().busy


def test_no_two_images_share_a_blob() -> None:
    blobs = [
        {blob.digest for manifest in image.manifests() for blob in manifest.blobs}
        for image in small_images()
    ]
    assert sum(len(digests) for digests in blobs) == len(set().union(*blobs))


def test_manifests_name_what_they_hold_by_digest_and_size() -> None:
    for image in small_images():
        for manifest in image.manifests():
            body = json.loads(manifest.blob.data)
            named = body.get("manifests") or [body["config"], *body["layers"]]
            held = [child.blob for child in manifest.children] or manifest.blobs
            expected = [(hashlib.sha256(b.data).hexdigest(), len(b.data)) for b in held]
            assert [(d["digest"].partition(":")[2], d["size"]) for d in named] == expected


def test_the_big_layer_is_bigger_than_a_hundred_megabytes() -> None:
    assert BIG_LAYER_BYTES > 100_000_000
