"""The router for any target: it never guesses, and what it finds is within the grammar."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidName
from engine.names import Digest, Repository, Tag, parse_reference
from server.refusals import Refusal
from server.routes import (
    BaseRoute,
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    RootRoute,
    Router,
)
from tests.fakes.upstreams import GHCR, HUB, LOCAL

UPSTREAMS = {"docker.io", "ghcr.io", "localhost:5001"}
COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
NAMES = st.lists(COMPONENT, min_size=2, max_size=5).map("/".join)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True)
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
# Parts of real targets, so that the search reaches deep.
PIECES = st.sampled_from(
    [b"/", b"/v2/", b"blobs", b"manifests", b"tags/list", b"_catalog", b"..", b"%2e", b"%00", b"%",
     b"?", b"ns=", b"&n=", b"ghcr.io", b"docker.io", b"sha256:" + b"a" * 64, b"a", b"\xff", b"//"]
)  # fmt: skip


def new_router() -> Router:
    return Router((HUB, GHCR, LOCAL))


@given(st.one_of(st.binary(), st.lists(PIECES).map(b"".join)), st.none() | st.binary())
def test_any_target_is_refused_or_within_the_grammar(target: bytes, host: bytes | None) -> None:
    try:
        route = new_router().match(target, host)
    except (Refusal, InvalidName):
        return
    if isinstance(route, RootRoute | BaseRoute | CatalogRoute):
        return
    location = route.asked.location
    assert location.upstream in UPSTREAMS
    assert Repository.parse(location.repository) == location.repository
    if isinstance(route, ManifestRoute):
        assert parse_reference(route.reference) == route.reference
    elif isinstance(route, BlobRoute):
        assert Digest.parse(route.digest) == route.digest


@given(NAMES, TAGS)
def test_every_valid_name_and_tag_is_found_as_it_is(name: str, tag: str) -> None:
    route = new_router().match(f"/v2/{name}/manifests/{tag}?ns=ghcr.io".encode(), None)
    assert isinstance(route, ManifestRoute)
    assert route.asked.location == ("ghcr.io", name.removeprefix("ghcr.io/"))
    assert route.reference == Tag(tag)


@given(NAMES, DIGESTS)
def test_percent_encoding_changes_nothing(name: str, digest: str) -> None:
    plain = f"/v2/{name}/blobs/{digest}"
    everything = "".join(f"%{byte:02X}" for byte in plain[1:].encode())
    router = new_router()
    expected = router.match(plain.encode(), None)
    assert router.match(quote(plain).encode(), None) == expected
    assert router.match(b"/" + everything.encode(), None) == expected


@given(st.lists(st.tuples(NAMES, TAGS), max_size=30))
def test_memory_never_changes_an_answer(asked: list[tuple[str, str]]) -> None:
    router = new_router()
    for name, tag in asked * 2:
        target = f"/v2/{name}/manifests/{tag}".encode()
        assert router.match(target, None) == new_router().match(target, None)
