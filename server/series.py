"""What is counted of finished exchanges: a few integers for each kind of answer. Pure.

Invariant: routes, methods, statuses and cache statuses are this server's own few words, whatever
clients ask for; so a series for each of their combinations needs no further bound.
"""

from bisect import bisect_left
from enum import Enum

from engine.names import Location
from server.pulls import Served
from server.routes import (
    BaseRoute,
    BlobRoute,
    CatalogRoute,
    ManifestRoute,
    ReferrersRoute,
    RootRoute,
    Route,
    TagsRoute,
)

# Upper bounds of the buckets, in seconds: a hit takes 20 µs, a large download minutes. The official
# registry's bounds (5 ms to 60 s) are among them, so that its histogram can be made of ours.
BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 25.0, 60.0, 300.0,
)  # fmt: skip


class RouteKind(Enum):
    """What was asked for."""

    BLOB = "blob"
    MANIFEST = "manifest"
    TAGS = "tags"
    REFERRERS = "referrers"
    CATALOG = "catalog"
    BASE = "base"  # `/v2/`
    ROOT = "root"  # `/`
    OTHER = "other"  # nothing that there is


class Method(Enum):
    """How it was asked for; all that is refused is one."""

    GET = "GET"
    HEAD = "HEAD"
    OTHER = "other"


_METHODS = {b"GET": Method.GET, b"HEAD": Method.HEAD}


def method_of(method: bytes) -> Method:
    """Tell a method's class."""
    return _METHODS.get(method, Method.OTHER)


def kind_of(route: Route) -> tuple[RouteKind, Location | None]:
    """Tell what a route asks for, and of which repository."""
    match route:
        case BlobRoute(asked=asked):
            return RouteKind.BLOB, asked.location
        case ManifestRoute(asked=asked):
            return RouteKind.MANIFEST, asked.location
        case TagsRoute(asked=asked):
            return RouteKind.TAGS, asked.location
        case ReferrersRoute(asked=asked):
            return RouteKind.REFERRERS, asked.location
        case CatalogRoute():
            return RouteKind.CATALOG, None
        case BaseRoute():
            return RouteKind.BASE, None
        case RootRoute():
            return RouteKind.ROOT, None


class Histogram:
    """Durations by `BOUNDS_S`. `counts` has one more, for what took longer than all bounds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def note(self, duration_s: float) -> None:
        """Count one; a duration on a bound counts as within it."""
        self.counts[bisect_left(BOUNDS_S, duration_s)] += 1
        self.total_s += duration_s

    @property
    def count(self) -> int:
        """How many were noted."""
        return sum(self.counts)

    def add(self, other: "Histogram") -> None:
        """Count all of `other`."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total_s += other.total_s


class Series:
    """Exchanges that are alike in route, method, status and cache status."""

    __slots__ = ("durations", "sent_bytes")

    def __init__(self) -> None:
        self.sent_bytes = 0  # heads included
        self.durations = Histogram()


class Place:
    """Where exchanges that are alike are counted; `served` is of the repository, if it counts."""

    __slots__ = ("durations", "location", "series", "served")

    def __init__(self, series: Series, location: Location | None, served: Served | None) -> None:
        self.series = series
        self.durations = series.durations
        self.location = location
        self.served = served
