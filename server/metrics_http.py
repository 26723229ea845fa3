"""What clients were answered, as metrics. Pure.

Invariant: no label holds what a client chose: routes, methods, statuses and cache statuses are the
server's own words.
"""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from server.access_log import AccessLog
from server.counted import Snapshot, add_up
from server.endpoint import Endpoint
from server.metric_families import count, counter, histogram, level


def iter_answers(counted: Snapshot) -> Iterator[Metric]:
    """List what was counted of finished exchanges."""
    yield counter(
        "moorage_http_requests",
        "Requests answered. Status 0: the client went before the answer.",
        ("route", "method", "status", "cache_status"),
        (
            ((each.route.value, each.method.value, str(each.status), each.cache_status), each.count)
            for each in counted.answers
        ),
    )
    sent_bytes: Counter[tuple[str, ...]] = Counter()
    for each in counted.answers:
        sent_bytes[each.route.value, each.cache_status] += each.sent_bytes
    yield counter(
        "moorage_http_sent_bytes",
        "Bytes sent in answers, heads included.",
        ("route", "cache_status"),
        sent_bytes.items(),
    )
    yield histogram(
        "moorage_http_request_duration_seconds",
        "From a request to its answer's last byte with the kernel; hit: the content was here.",
        ("route", "hit"),
        (
            ((route.value, str(is_hit).lower()), durations)
            for (route, is_hit), durations in add_up(
                ((route, is_hit), durations)
                for (route, _, is_hit), durations in counted.durations.items()
            ).items()
        ),
    )
    yield histogram(
        "moorage_http_first_byte_seconds",
        "From a request to its answer's head, of bodies that were sent while they were fetched.",
        (),
        [((), counted.first_bytes)],
    )
    yield count(
        "moorage_http_clients_gone",
        "Answers whose client went before their end.",
        counted.gone_count,
    )
    yield count(
        "moorage_http_responses_cut",
        "Answers that the mirror cut off, as it could not end them.",
        counted.cut_count,
    )


def iter_connections(endpoint: Endpoint) -> Iterator[Metric]:
    """List how busy the main port is."""
    yield level("moorage_http_connections", "Open client connections.", len(endpoint.connections))
    yield level(
        "moorage_http_connections_limit",
        "Client connections that may be open at a time.",
        endpoint.limits.max_connections,
    )
    yield count(
        "moorage_http_connections_refused",
        "Connections reset, as too many were open.",
        endpoint.refused_count,
    )
    yield level(
        "moorage_http_requests_waiting",
        "Requests that wait for disk, upstream or a slow client.",
        endpoint.waiting_count,
    )


def iter_access_log(access_log: AccessLog) -> Iterator[Metric]:
    """List what the access log lost."""
    yield count(
        "moorage_access_log_dropped_lines",
        "Access log lines dropped, as their reader did not keep up.",
        access_log.dropped_count,
    )
