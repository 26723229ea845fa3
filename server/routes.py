"""From a request target to what is asked for, at which upstream. Pure.

Invariant: a route holds only names that the grammar allows and an upstream that is configured; all
other targets are refused here, before anything is touched.
The path is percent-decoded once and split at the last noun, as a repository may be named `blobs`.
Source: OCI distribution-spec "Endpoints", "Registry Proxying".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from engine.errors import InvalidRepository
from engine.names import Digest, Location, Reference, Repository, parse_reference
from engine.settings import UpstreamSettings
from server.memo import Memo
from server.paging import PageQuery, parse_size
from server.refusals import NamespaceUnknown, PathUnknown

# About 1 KiB each, in the memo's two generations: 4 MiB. With 8,192, a churn of new blobs added
# 16 MiB that nobody had a use for.
_MEMO_ENTRIES = 2_048
_MEMO_TARGET_BYTES = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """A repository as the client asked for it.

    `name` is its path below `/v2/`; `namespace` is the `ns` value that chose the upstream, empty
    where something else did.
    """

    location: Location
    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class RootRoute:
    """`/`: is anybody there?"""


@dataclass(frozen=True, slots=True)
class BaseRoute:
    """`/v2/`: does this speak the registry API?"""

    namespace: str


@dataclass(frozen=True, slots=True)
class CatalogRoute:
    """`/v2/_catalog`, as seen from `upstream`, whose repositories bear no prefix."""

    path: str
    upstream: str
    query: PageQuery


@dataclass(frozen=True, slots=True)
class TagsRoute:
    """`/v2/<name>/tags/list`."""

    path: str
    asked: Asked
    query: PageQuery


@dataclass(frozen=True, slots=True)
class ReferrersRoute:
    """`/v2/<name>/referrers/<digest>`."""

    asked: Asked
    digest: Digest
    artifact_type: str | None


@dataclass(frozen=True, slots=True)
class ManifestRoute:
    """`/v2/<name>/manifests/<reference>`."""

    asked: Asked
    reference: Reference


@dataclass(frozen=True, slots=True)
class BlobRoute:
    """`/v2/<name>/blobs/<digest>`."""

    asked: Asked
    digest: Digest


Route = (
    BlobRoute | ManifestRoute | TagsRoute | ReferrersRoute | CatalogRoute | BaseRoute | RootRoute
)


def namespace_of(route: Route) -> str:
    """Tell the `ns` value that chose the upstream; empty where something else did."""
    match route:
        case RootRoute():
            return ""
        case BaseRoute(namespace=namespace):
            return namespace
        case CatalogRoute(query=query):
            return query.namespace
        case _:
            return route.asked.namespace


@dataclass(frozen=True, slots=True)
class _Query:
    """The parameters that any endpoint knows; empty = not given."""

    namespace: str = ""
    n: str = ""
    last: str = ""
    artifact_type: str = ""

    def page(self) -> PageQuery:
        return PageQuery(parse_size(self.n), self.last, self.namespace)


class Router:
    """Parses targets by the configured upstreams. The first upstream is the default one."""

    def __init__(self, upstreams: Sequence[UpstreamSettings], prefix: str = "/") -> None:
        self._default = upstreams[0]
        self._by_name: dict[str, UpstreamSettings] = {}
        for upstream in upstreams:
            for name in (upstream.namespace, *upstream.namespaces):
                self._by_name.setdefault(name.lower(), upstream)
        self._api = f"{prefix}v2/"
        # With a single upstream, every Host means the same one.
        self.heeds_host = len(upstreams) > 1
        self._memo: Memo[tuple[bytes, bytes | None], Route] = Memo(_MEMO_ENTRIES)

    def match(self, target: bytes, host: bytes | None) -> Route:
        """Find what `target`, in origin form, asks for. `host` is needed if `heeds_host`.

        Raises a `Refusal`, or an `InvalidName` of the engine.
        """
        key = (target, host)
        route = self._memo.find(key)
        if route is None:
            route = self._parse(target, host)
            if len(target) + len(host or b"") <= _MEMO_TARGET_BYTES:
                self._memo.add(key, route)
        return route

    def _parse(self, target: bytes, host: bytes | None) -> Route:
        raw_path, _, raw_query = target.partition(b"?")
        path = _decode_path(raw_path)
        if path == "/":
            return RootRoute()
        query = _parse_query(raw_query)
        if path == self._api[:-1]:
            path = self._api
        if not path.startswith(self._api):
            raise PathUnknown(path)
        upstream = self._choose(query.namespace, host)
        return self._parse_endpoint(path, upstream, query)

    def _choose(self, namespace: str, host: bytes | None) -> UpstreamSettings:
        """Choose the upstream by `ns`, else by `Host`; a path prefix may overrule `Host`."""
        if namespace:
            upstream = self._by_name.get(namespace)
            if upstream is None:
                raise NamespaceUnknown(namespace, self._by_name)
            return upstream
        name = (host or b"").decode("latin-1").lower()
        bare, _, port = name.rpartition(":")
        found = self._by_name.get(name)
        if found is None and port.isdigit():
            found = self._by_name.get(bare)
        return found or self._default

    def _parse_endpoint(self, path: str, upstream: UpstreamSettings, query: _Query) -> Route:
        rest = path.removeprefix(self._api)
        if not rest:
            return BaseRoute(query.namespace)
        if rest == "_catalog":
            return CatalogRoute(path, upstream.namespace, query.page())
        if rest.endswith("/tags/list"):
            name = rest.removesuffix("/tags/list")
            return TagsRoute(path, self._locate(name, upstream, query.namespace), query.page())
        head, _, reference = rest.rpartition("/")
        name, _, noun = head.rpartition("/")
        match noun:
            case "blobs":
                asked = self._locate(name, upstream, query.namespace)
                return BlobRoute(asked, Digest.parse(reference))
            case "manifests":
                asked = self._locate(name, upstream, query.namespace)
                return ManifestRoute(asked, parse_reference(reference))
            case "referrers":
                asked = self._locate(name, upstream, query.namespace)
                digest = Digest.parse(reference)
                return ReferrersRoute(asked, digest, query.artifact_type or None)
            case _:
                raise PathUnknown(path)

    def _locate(self, name: str, upstream: UpstreamSettings, namespace: str) -> Asked:
        first, _, rest = name.partition("/")
        named = self._by_name.get(first) if rest else None
        repository = name
        # With `ns`, a prefix counts only where it says the same: containerd adds `ns` to a mirror
        # whose configured URL bears the prefix already.
        if named is not None and (not namespace or named is upstream):
            upstream, repository = named, rest
        if upstream.is_docker_hub and "/" not in repository:
            repository = f"library/{repository}"
        location = Location(upstream.namespace, Repository.parse(repository))
        return Asked(location, name, namespace)


def _decode_path(raw: bytes) -> str:
    decoded = unquote_to_bytes(raw) if b"%" in raw else raw
    try:
        return decoded.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRepository(decoded.decode("ascii", "backslashreplace")) from exc


def _parse_query(raw: bytes) -> _Query:
    """Read the known parameters; the first of several counts, undecodable bytes match nothing."""
    if not raw:
        return _Query()
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    given = dict(reversed(pairs))
    return _Query(
        namespace=given.get("ns", "").lower(),
        n=given.get("n", ""),
        last=given.get("last", ""),
        artifact_type=given.get("artifactType", ""),
    )
