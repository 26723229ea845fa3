"""Referrers: upstream's own list; where it has none, the content of the fallback tag.

Invariant: never cached, since signatures come and go; a digest without referrers has an empty image
index, never "not found".
Source: OCI distribution-spec "Listing Referrers" and "Backwards Compatibility, Unavailable
Referrers API".
"""

import asyncio

import msgspec

from engine.descriptor import OCI_INDEX
from engine.errors import NotFound, UpstreamProtocolError
from engine.json_text import MalformedJSON, decode_json
from engine.lookup import ReferrersPage
from engine.names import Digest, Location, Tag
from engine.upstream.api import Upstream

DEADLINE_S = 10.0

# The spec cuts the fallback tag to what the tag grammar allows.
_MAX_ALGORITHM_CHARS = 32
_MAX_HEX_CHARS = 64


class _Index(msgspec.Struct):
    """An image index whose descriptors are kept as they are."""

    manifests: list[dict[str, object]] | None = None


async def get_referrers(
    upstream: Upstream, location: Location, digest: Digest, artifact_type: str | None
) -> ReferrersPage:
    """Ask upstream for the referrers of `digest`, of one `artifact_type` unless that is None."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    try:
        body = await upstream.get_referrers(location.repository, digest, deadline=deadline)
        if body is None:
            fallback = await upstream.get_manifest(
                location.repository, fallback_tag(digest), deadline=deadline
            )
            body = fallback.body
    except NotFound:
        body = b'{"manifests":[]}'
    return ReferrersPage(_filter(body, artifact_type), is_filtered=artifact_type is not None)


def fallback_tag(digest: Digest) -> Tag:
    """The tag that holds the referrers of `digest` where there is no referrers API."""
    return Tag(f"{digest.algorithm[:_MAX_ALGORITHM_CHARS]}-{digest.hex[:_MAX_HEX_CHARS]}")


def _filter(body: bytes, artifact_type: str | None) -> bytes:
    try:
        found = decode_json(body, _Index).manifests or []
    except MalformedJSON as exc:
        raise UpstreamProtocolError(f"upstream's referrers are no image index: {exc}") from exc
    if artifact_type is not None:
        found = [d for d in found if d.get("artifactType") == artifact_type]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})
