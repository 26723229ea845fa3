"""Pages of tags and referrers, merged."""

import json

import pytest

from engine.errors import UpstreamProtocolError
from engine.upstream.pages import merge_referrers, merge_tags


def test_tags_are_sorted_and_each_is_there_once() -> None:
    pages = [b'{"tags":["b","a"]}', b'{"tags":null}', b'{"name":"x"}', b'{"tags":["c","a"]}']
    assert merge_tags(pages, "x tags") == ("a", "b", "c")


def test_a_single_page_of_referrers_stays_as_it_is() -> None:
    page = b'{ "manifests": [ ],  "annotations": {"a": "b"} }'
    assert merge_referrers([page], "x") == page


def test_descriptors_keep_every_member() -> None:
    pages = [
        b'{"schemaVersion":2,"manifests":[{"digest":"a","artifactType":"t"}]}',
        b'{"schemaVersion":2,"manifests":null}',
        b'{"schemaVersion":2,"manifests":[{"digest":"b","annotations":{"k":"v"}}]}',
    ]
    assert json.loads(merge_referrers(pages, "x")) == {
        "schemaVersion": 2,
        "manifests": [
            {"digest": "a", "artifactType": "t"},
            {"digest": "b", "annotations": {"k": "v"}},
        ],
    }


@pytest.mark.parametrize("page", [b"", b"[]", b"<html>", b'{"tags":[1]}', b"[" * 100_000])
def test_what_is_no_list_of_tags_is_a_protocol_error(page: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="x tags"):
        merge_tags([page], "x tags")


@pytest.mark.parametrize("page", [b"", b"[]", b"{}", b'{"manifests":{}}', b"<html>"])
def test_what_is_no_image_index_is_a_protocol_error(page: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="not an image index"):
        merge_referrers([page], "x")
