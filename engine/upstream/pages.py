"""Lists that come in pages: tags and referrers, merged. Pure."""

from collections.abc import Sequence

import msgspec

from engine.errors import UpstreamProtocolError
from engine.json_text import MalformedJSON, decode_json


class _RawTags(msgspec.Struct):
    tags: list[str] | None = None  # null where there are none (Go's nil slice)


class _RawReferrers(msgspec.Struct):
    manifests: list[msgspec.Raw] | None


def merge_tags(pages: Sequence[bytes], what: str) -> tuple[str, ...]:
    """Give the tags of all pages, each once, in lexical order."""
    tags: set[str] = set()
    for page in pages:
        try:
            tags.update(decode_json(page, _RawTags).tags or ())
        except MalformedJSON as exc:
            raise UpstreamProtocolError(f"{what}: not a list of tags: {exc}") from exc
    return tuple(sorted(tags))


def merge_referrers(pages: Sequence[bytes], what: str) -> bytes:
    """Give one image index: the only page as it is, else the first one with all descriptors."""
    manifests: list[msgspec.Raw] = []
    try:
        for page in pages:
            manifests += decode_json(page, _RawReferrers).manifests or ()
        if len(pages) == 1:
            return pages[0]
        index = decode_json(pages[0], dict[str, msgspec.Raw])
    except MalformedJSON as exc:
        raise UpstreamProtocolError(f"{what}: not an image index: {exc}") from exc
    index["manifests"] = msgspec.Raw(msgspec.json.encode(manifests))
    return msgspec.json.encode(index)
