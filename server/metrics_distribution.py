"""The official registry's own metrics, by its names and labels, so that its dashboards go on. Pure.

Rule: what is counted as there; a request counts where it was answered with content. What would mean
another thing here is left out: sizes of requests and responses, the cache of descriptors.
Source: distribution 3.1, registry/proxy/proxymetrics.go; docker/go-metrics, handler.go.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from engine.live_views import UpstreamView
from server.counted import Answers, Snapshot, add_up
from server.endpoint import Endpoint
from server.metric_families import counter, gauge, histogram
from server.series import Method, RouteKind

# go-metrics' defaults.
_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)

_TYPES = ("blob", "manifest")
_SUCCESSES = frozenset({200, 206, 304})
# distribution's names of routes are ours, as far as it has them.
_HANDLERS = frozenset(
    {RouteKind.BASE, RouteKind.BLOB, RouteKind.CATALOG, RouteKind.MANIFEST, RouteKind.TAGS}
)


def iter_proxy(counted: Snapshot, upstreams: tuple[UpstreamView, ...]) -> Iterator[Metric]:
    """List `registry_proxy_…`."""
    requests, hits, misses, pushed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for each in filter(_is_content, counted.answers):
        kind = each.route.value
        requests[kind] += each.count
        (hits if each.is_hit else misses)[kind] += each.count
        pushed[kind] += each.sent_bytes
    pulled = {
        "blob": sum(each.counts.blob_bytes for each in upstreams),
        "manifest": sum(each.counts.manifest_bytes for each in upstreams),
    }
    for name, text, numbers in (
        ("requests", "The number of total incoming proxy request received", requests),
        ("hits", "The number of total proxy request hits", hits),
        ("misses", "The number of total proxy request misses", misses),
        ("pulled_bytes", "The size of total bytes pulled from the upstream", pulled),
        ("pushed_bytes", "The size of total bytes pushed to the client", pushed),
    ):
        rows = (((kind,), numbers[kind]) for kind in _TYPES)
        yield counter(f"registry_proxy_{name}", text, ("type",), rows)


def iter_http(counted: Snapshot, endpoint: Endpoint | None) -> Iterator[Metric]:
    """List `registry_http_…`. Requests in flight are not known by handler."""
    requests: Counter[tuple[str, ...]] = Counter()
    for each in counted.answers:
        if each.route in _HANDLERS:
            requests[str(each.status), each.route.value, _method_of(each.method)] += each.count
    yield counter(
        "registry_http_requests",
        "Total number of HTTP requests made.",
        ("code", "handler", "method"),
        requests.items(),
    )
    yield histogram(
        "registry_http_request_duration_seconds",
        "The HTTP request latencies in seconds.",
        ("handler", "method"),
        add_up(
            ((route.value, _method_of(method)), durations)
            for (route, method, _), durations in counted.durations.items()
            if route in _HANDLERS
        ).items(),
        _BOUNDS_S,
    )
    waiting_count = 0 if endpoint is None else endpoint.waiting_count
    yield gauge(
        "registry_http_in_flight_requests",
        "The in-flight HTTP requests",
        ("handler",),
        [(("all",), waiting_count)],
    )


def _is_content(answers: Answers) -> bool:
    return answers.route.value in _TYPES and answers.status in _SUCCESSES


def _method_of(method: Method) -> str:
    return "unknown" if method is Method.OTHER else method.value.lower()
