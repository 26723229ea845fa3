"""The requests that the mirror and distribution are both asked, and where they shall differ.

A case without `better` is a promise to be the same in everything that a client looks at. One with
it names an improvement; should distribution answer likewise one day, the case fails and goes.
"""

from dataclasses import dataclass, field

from tests.fakes.images import OCI_INDEX, Format
from tests.fakes.images_catalogue import catalogue

DOCKER_MANIFEST = Format.DOCKER.value[0]
_WARM = catalogue().peer  # whose content both have, but where a case says "cold"
_MULTI = catalogue().multi
_PRIVATE = catalogue().private
_NOTHING = f"sha256:{'0' * 64}"


@dataclass(frozen=True, slots=True)
class Better:
    """What the mirror answers instead, and why that is an improvement."""

    why: str
    status: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One request; `name` is unique."""

    name: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    better: Better | None = None


def warm_targets() -> list[str]:
    """List what has to be fetched once so that content is warm."""
    manifests = [_manifest(_WARM.tag), _manifest(_WARM.top.blob.digest)]
    return manifests + [_blob(blob.digest) for blob in _WARM.top.blobs]


def _manifest(reference: str) -> str:
    return f"/v2/{_WARM.repository}/manifests/{reference}"


def _blob(digest: str) -> str:
    return f"/v2/{_WARM.repository}/blobs/{digest}"


def _cold_blob(number: int) -> str:
    """A blob that no other case asks for: both mirrors fetch it for this case."""
    blob = _MULTI.top.children[0].layers[number].blob
    return f"/v2/{_MULTI.repository}/blobs/{blob.digest}"


_TAG, _DIGEST = _manifest(_WARM.tag), _manifest(_WARM.top.blob.digest)
_LAYER = _blob(_WARM.top.layers[0].blob.digest)
_DOCKER = {"Accept": DOCKER_MANIFEST}

MANIFESTS = [
    Case("tag", _TAG, _DOCKER),
    Case("HEAD tag", _TAG, _DOCKER, "HEAD"),
    Case("digest", _DIGEST, _DOCKER),
    Case("HEAD digest", _DIGEST, _DOCKER, "HEAD"),
    Case("digest without Accept", _DIGEST),
    Case("image index", f"/v2/{_MULTI.repository}/manifests/1", {"Accept": OCI_INDEX}),
    Case("If-None-Match", _DIGEST, _DOCKER | {"If-None-Match": f'"{_WARM.top.blob.digest}"'}),
    Case(
        "tag without Accept",
        _TAG,
        better=Better("upstream's bytes, not a rewriting to schema 1 that has another digest", 200),
    ),
    Case(
        "image index for a client that names Docker's types alone",
        f"/v2/{_MULTI.repository}/manifests/1",
        _DOCKER,
        better=Better("whoever cannot read it says so better than a 404 does", 200),
    ),
    Case("unknown tag", _manifest("nope"), _DOCKER),
    Case(
        "unknown digest",
        _manifest(_NOTHING),
        _DOCKER,
        better=Better("404, not 500: nothing is broken", 404, "MANIFEST_UNKNOWN"),
    ),
    Case("unknown repository", "/v2/acme/none/manifests/1", _DOCKER),
    Case(
        "a repository that upstream keeps from us",
        f"/v2/{_PRIVATE.repository}/manifests/{_PRIVATE.tag}",
        _DOCKER,
        better=Better("says that it is denied, not that it does not exist", 403, "DENIED"),
    ),
    Case(
        "a prefix that names the upstream",
        f"/v2/docker.io/{_WARM.repository}/manifests/{_WARM.tag}",
        _DOCKER,
        better=Better("podman can only choose an upstream by a prefix", 200),
    ),
    Case(
        "ns of a registry that is not configured",
        f"{_TAG}?ns=other.example",
        _DOCKER,
        better=Better("never an image of one registry for another's", 404, "NAME_UNKNOWN"),
    ),
    Case(
        "a repository that breaks the grammar",
        "/v2/ACME/x/manifests/1",
        better=Better("names the mistake, and upstream is not asked", 400, "NAME_INVALID"),
    ),
]

BLOBS = [
    Case("blob", _LAYER),
    Case("HEAD blob", _LAYER, method="HEAD"),
    Case("cold blob", _cold_blob(0)),
    Case("HEAD of a cold blob", _cold_blob(1), method="HEAD"),
    Case("Range", _LAYER, {"Range": "bytes=10-19"}),
    Case("open Range", _LAYER, {"Range": "bytes=1000-"}),
    Case("suffix Range", _LAYER, {"Range": "bytes=-5"}),
    Case("blob, If-None-Match", _LAYER, {"If-None-Match": f'"{_LAYER.rpartition("/")[2]}"'}),
    Case(
        "Range of a cold blob",
        _cold_blob(2),
        {"Range": "bytes=0-9"},
        better=Better("a client that resumes gets the rest, not all of it again", 206),
    ),
    Case(
        "Range past the end",
        _LAYER,
        {"Range": "bytes=99999999-"},
        better=Better("a whole 416: distribution cuts it short", 416, "RANGE_INVALID"),
    ),
    Case(
        "several ranges",
        _LAYER,
        {"Range": "bytes=0-1,5-6"},
        better=Better("no registry client reads multipart; the whole blob serves all", 200),
    ),
    Case(
        "a Range that is none",
        _LAYER,
        {"Range": "bytes=z"},
        better=Better("RFC 9110 §14.2: an invalid Range is ignored", 200),
    ),
    Case("unknown blob", _blob(_NOTHING)),
    Case("a digest that breaks the grammar", _blob("sha256:00")),
]

OTHERS = [
    Case("/v2/", "/v2/"),
    Case("/", "/"),
    Case("tags", f"/v2/{_WARM.repository}/tags/list"),
    Case("tags of an unknown repository", "/v2/acme/none/tags/list"),
    Case(
        "a page of tags by a number that is none",
        f"/v2/{_WARM.repository}/tags/list?n=x",
        better=Better("a typing error is told", 400, "PAGINATION_NUMBER_INVALID"),
    ),
    Case(
        "referrers",
        f"/v2/{_WARM.repository}/referrers/{_WARM.top.blob.digest}",
        better=Better("version 1.1 of the API", 200),
    ),
    Case("push of a blob", f"/v2/{_WARM.repository}/blobs/uploads/", method="POST"),
    Case("DELETE of a manifest", _DIGEST, method="DELETE"),
    Case("DELETE of a blob", _LAYER, method="DELETE"),
    Case(
        "PATCH of a blob",
        _LAYER,
        method="PATCH",
        better=Better("an error that a client can read", 405, "UNSUPPORTED"),
    ),
    Case(
        "push of a manifest",
        _manifest("x"),
        method="PUT",
        better=Better("pushing is unsupported, whatever the manifest", 405, "UNSUPPORTED"),
    ),
    Case(
        "POST to /v2/",
        "/v2/",
        method="POST",
        better=Better("405 wherever nothing can be written", 405, "UNSUPPORTED"),
    ),
    Case(
        "a path outside the API",
        "/v2x/",
        better=Better("an error that a client can read", 404, "UNSUPPORTED"),
    ),
]
