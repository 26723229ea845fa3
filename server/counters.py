"""Every finished exchange is counted, in plain integers that metrics and the status page read.

Invariant: a hit costs one look-up and a few additions, and allocates nothing that stays; memory is
bounded whatever clients ask for. An exchange is counted once, when it is over: what is still being
sent is not in it.
Must not know: Prometheus, HTML, the engine's state.

To read: `snapshot()`, on the loop's thread.
"""

import time
from bisect import bisect_left
from collections.abc import Callable

from engine.errors import InvalidName
from engine.names import Location
from server.counted import (
    HITS,
    NONE,
    Answers,
    Durations,
    RepositoryPulls,
    Snapshot,
)
from server.exchange import CLIENT_GONE, Exchange
from server.pulls import Pulls, PullTable, Served
from server.recent_errors import RecentErrors
from server.refusals import Refusal
from server.routes import Router
from server.series import (
    BOUNDS_S,
    Histogram,
    Method,
    Place,
    RouteKind,
    Series,
    kind_of,
    method_of,
)

# Where requests are counted is remembered for so many, then anew; for a longer target it is not.
_MAX_PLACES = 8_192
_MAX_TARGET_BYTES = 512
_MAX_REPOSITORIES = 1_000
_SHOWN_REPOSITORIES = 100
_MAX_ERRORS = 64

_SUCCESSES = frozenset({200, 206})

# Target, method, status, cache status, upstream.
_Key = tuple[bytes, bytes, int, str, str]


class Counters:
    """An observer of exchanges. `clock` tells unix seconds."""

    def __init__(self, router: Router, clock: Callable[[], float] = time.time) -> None:
        self.started_at = clock()
        self.gone_count = 0
        self.cut_count = 0
        self._router = router
        self._clock = clock
        self._series: dict[tuple[RouteKind, Method, int, str], Series] = {}
        self._first_bytes = Histogram()
        self._pulls = PullTable(_MAX_REPOSITORIES)
        self._failures = RecentErrors(_MAX_ERRORS)
        self._refusals = RecentErrors(_MAX_ERRORS)
        # Requests of a fleet are alike: where each is counted is worked out once.
        self._places: dict[_Key, Place] = {}

    def exchange_over(self, exchange: Exchange, sent_bytes: int, duration_s: float) -> None:
        """Count an exchange. It runs for each hit: nothing is called here that need not be."""
        place = exchange.place
        if place is None:
            key = (
                exchange.target,
                exchange.method,
                exchange.status,
                exchange.cache_status,
                exchange.upstream,
            )
            place = exchange.place = self._places.get(key) or self._locate(exchange, key)
        durations = place.durations
        durations.counts[bisect_left(BOUNDS_S, duration_s)] += 1
        durations.total_s += duration_s
        place.series.sent_bytes += sent_bytes
        served = place.served
        if served is not None:
            served.count += 1
            served.sent_bytes += sent_bytes
        if exchange.first_byte_s is not None:
            self._first_bytes.note(exchange.first_byte_s)
        if exchange.cause:
            self._note_cause(exchange, place)

    def snapshot(self) -> Snapshot:
        """Give all that was counted so far; well under a millisecond."""
        return Snapshot(
            started_at=self.started_at,
            answers=tuple(
                Answers(*key, series.durations.count, series.sent_bytes)
                for key, series in self._series.items()
            ),
            durations=self._sum_durations(),
            first_bytes=_freeze(self._first_bytes),
            gone_count=self.gone_count,
            cut_count=self.cut_count,
            repositories=tuple(
                RepositoryPulls(
                    *pulls.location, pulls.manifests.count, pulls.blobs.count, pulls.sent_bytes
                )
                for pulls in self._pulls.top(_SHOWN_REPOSITORIES)
            ),
            failures=self._failures.latest_first(),
            refusals=self._refusals.latest_first(),
        )

    def _locate(self, exchange: Exchange, key: _Key) -> Place:
        """Find, or make, where such an exchange is counted."""
        route, location = self._classify(exchange)
        method = method_of(exchange.method)
        status, cache_status = exchange.status, exchange.cache_status or NONE
        series = self._series.setdefault((route, method, status, cache_status), Series())
        is_pull = method is Method.GET and status in _SUCCESSES
        served = self._find_served(route, location) if location and is_pull else None
        place = Place(series, location, served)
        # Without an upstream in the key, it may be another one's for another Host.
        is_clear = location is None or bool(exchange.upstream)
        if is_clear and len(exchange.target) <= _MAX_TARGET_BYTES:
            if len(self._places) >= _MAX_PLACES:
                self._places.clear()
            self._places[key] = place
        return place

    def _classify(self, exchange: Exchange) -> tuple[RouteKind, Location | None]:
        host = exchange.header(b"host") if self._router.heeds_host else None
        try:
            return kind_of(self._router.match(exchange.target, host))
        except (Refusal, InvalidName):
            return RouteKind.OTHER, None

    def _find_served(self, route: RouteKind, location: Location) -> Served | None:
        match route:
            case RouteKind.BLOB:
                return self._find_pulls(location).blobs
            case RouteKind.MANIFEST:
                return self._find_pulls(location).manifests
            case _:
                return None

    def _find_pulls(self, location: Location) -> Pulls:
        pulls = self._pulls.find(location)
        if pulls is None:
            if self._pulls.is_full:
                self._pulls.shrink()
                # Places lead to repositories that are gone.
                self._places.clear()
            pulls = self._pulls.add(location)
        return pulls

    def _note_cause(self, exchange: Exchange, place: Place) -> None:
        if exchange.cause == CLIENT_GONE:
            self.gone_count += 1
            return
        is_failure = exchange.status < 400 or exchange.status >= 500 or exchange.status == 429
        if exchange.status < 400:
            self.cut_count += 1
        errors = self._failures if is_failure else self._refusals
        errors.note(exchange, place.location, self._clock())

    def _sum_durations(self) -> dict[tuple[RouteKind, Method, bool], Durations]:
        sums: dict[tuple[RouteKind, Method, bool], Histogram] = {}
        for (route, method, _, cache_status), series in self._series.items():
            key = (route, method, cache_status in HITS)
            sums.setdefault(key, Histogram()).add(series.durations)
        return {key: _freeze(histogram) for key, histogram in sums.items()}


def _freeze(histogram: Histogram) -> Durations:
    return Durations(tuple(histogram.counts), histogram.total_s)
