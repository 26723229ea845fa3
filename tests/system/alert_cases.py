"""For each alert: series by which it fires after a while, and near ones by which it does not.

Series are `promtool test rules`': one value a minute, `A+BxN` counts on from A by B, N times. All
of them bear `LABELS`, which the alert keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

LABELS = {"job": "moorage", "instance": "mirror:5001"}

_ALL = "moorage_http_requests_total"
_HUB = {"upstream": "docker.io"}


@dataclass(frozen=True, slots=True)
class AlertCase:
    """`fires` and `stays` map a metric's name, with labels in braces, to its values.

    `at_minutes`: when it is looked; `labels`: what the alert bears beyond `LABELS`, and severity.
    """

    alert: str
    severity: str
    fires: Mapping[str, str]
    stays: Mapping[str, str]
    at_minutes: int = 20
    labels: Mapping[str, str] = field(default_factory=dict)


def _requests(status: str = "200", cache_status: str = "hit") -> str:
    return f'{_ALL}{{status="{status}", cache_status="{cache_status}"}}'


def _buckets(name: str, fast: str, slow: str, labels: str = "") -> dict[str, str]:
    """A histogram of two buckets: up to 0.01 s and up to 25 s."""
    separator = ", " if labels else ""
    return {
        f'{name}_bucket{{{labels}{separator}le="0.01"}}': fast,
        f'{name}_bucket{{{labels}{separator}le="25"}}': slow,
        f'{name}_bucket{{{labels}{separator}le="+Inf"}}': slow,
    }


_HITS = "moorage_http_request_duration_seconds"
_MANIFEST_HITS = 'hit="true", route="manifest"'

CASES = (
    AlertCase("MoorageDown", "critical", {"up": "1 1 0x30"}, {"up": "1 0 1x30"}, at_minutes=5),
    AlertCase(
        "MoorageErrors",
        "critical",
        {_requests(): "0+95x30", _requests("503", "none"): "0+5x30"},
        {_requests(): "0+99x30", _requests("503", "none"): "0+1x30"},
    ),
    AlertCase(
        "MoorageResponsesCut",
        "warning",
        {"moorage_http_responses_cut_total": "0x15 1x15"},
        {"moorage_http_responses_cut_total": "3x30"},
    ),
    AlertCase(
        "MoorageSlowHits",
        "warning",
        _buckets(_HITS, "0+95x30", "0+100x30", _MANIFEST_HITS),
        _buckets(_HITS, "0+100x30", "0+100x30", _MANIFEST_HITS),
    ),
    AlertCase(
        "MoorageConnectionsNearLimit",
        "warning",
        {"moorage_http_connections": "91x30", "moorage_http_connections_limit": "100x30"},
        {"moorage_http_connections": "89x30", "moorage_http_connections_limit": "100x30"},
    ),
    AlertCase(
        "MoorageConnectionsRefused",
        "critical",
        {"moorage_http_connections_refused_total": "0x18 7x12"},
        {"moorage_http_connections_refused_total": "7x30"},
    ),
    AlertCase(
        "MoorageFilesNearLimit",
        "warning",
        {"process_open_fds": "950x30", "process_max_fds": "1000x30"},
        {"process_open_fds": "50x30", "process_max_fds": "1000x30"},
    ),
    AlertCase(
        "MoorageUpstreamDown",
        "critical",
        {
            'moorage_upstream_breaker_open{upstream="docker.io", lane="control"}': "0x5 1x25",
            'moorage_upstream_breaker_open{upstream="docker.io", lane="blob"}': "0x30",
        },
        {'moorage_upstream_breaker_open{upstream="docker.io", lane="blob"}': "0x17 1 1 0x11"},
        labels=_HUB,
    ),
    AlertCase(
        "MoorageUpstreamRateLimited",
        "warning",
        {'moorage_upstream_pause_seconds{upstream="docker.io", kind="manifest"}': "3000-60x30"},
        {'moorage_upstream_pause_seconds{upstream="docker.io", kind="manifest"}': "0x17 9 0x12"},
        labels=_HUB,
    ),
    AlertCase(
        "MoorageRateLimitNearlyUsed",
        "warning",
        {
            'moorage_upstream_ratelimit_remaining{upstream="docker.io"}': "9x30",
            'moorage_upstream_ratelimit_limit{upstream="docker.io"}': "100x30",
        },
        {
            'moorage_upstream_ratelimit_remaining{upstream="docker.io"}': "11x30",
            'moorage_upstream_ratelimit_limit{upstream="docker.io"}': "100x30",
        },
        labels=_HUB,
    ),
    AlertCase(
        "MoorageUpstreamRefuses",
        "info",
        {_requests("403", "none"): "0+1x60"},
        {_requests("404", "none"): "0+1x60"},
        at_minutes=40,
    ),
    AlertCase(
        "MoorageServesStale",
        "warning",
        {_requests("200", "stale"): "0+1x60"},
        {_requests("200", "revalidated"): "0+1x60", _requests("200", "stale"): "5x60"},
        at_minutes=40,
    ),
    AlertCase(
        "MoorageUpstreamSlow",
        "warning",
        _buckets("moorage_http_first_byte_seconds", "0+5x60", "0+10x60"),
        _buckets("moorage_http_first_byte_seconds", "0+10x60", "0+10x60"),
        at_minutes=40,
    ),
    AlertCase(
        "MoorageUpstreamBusy",
        "warning",
        {'moorage_upstream_refused_total{upstream="docker.io", reason="busy"}': "0+3x30"},
        {'moorage_upstream_refused_total{upstream="docker.io", reason="paused"}': "0+3x30"},
        labels=_HUB,
    ),
    AlertCase(
        "MoorageContentMismatch",
        "warning",
        {
            'moorage_fills_total{outcome="mismatch"}': "0x30",
            "moorage_fills_retried_total": "0+1x30",
        },
        {'moorage_fills_total{outcome="done"}': "0+1x30", "moorage_fills_retried_total": "1x30"},
    ),
    AlertCase(
        "MoorageBlobsDamaged",
        "critical",
        {"moorage_damaged_blobs_total": "0x10 1x20"},
        {"moorage_damaged_blobs_total": "1x30"},
    ),
    AlertCase(
        "MoorageIndexWritesFail",
        "critical",
        {"moorage_index_write_failures_total": "0x10 2x20"},
        {"moorage_index_write_failures_total": "2x30"},
    ),
    AlertCase(
        "MoorageNotStoring",
        "warning",
        {"moorage_fills_unstored_total": "0+1x60"},
        {"moorage_fills_unstored_total": "0x30 1x30"},
        at_minutes=40,
    ),
    AlertCase(
        "MoorageOverBudget",
        "warning",
        {
            'moorage_storage_used_bytes{kind="blobs"}': "90x60",
            'moorage_storage_used_bytes{kind="reserved"}': "11x60",
            "moorage_storage_limit_bytes": "100x60",
        },
        {
            'moorage_storage_used_bytes{kind="blobs"}': "90x60",
            'moorage_storage_used_bytes{kind="reserved"}': "10x60",
            "moorage_storage_limit_bytes": "100x60",
        },
        at_minutes=40,
    ),
    AlertCase(
        "MoorageDiskFilledByOthers",
        "warning",
        {'moorage_evicted_blobs_total{reason="minfree"}': "0x10 5x20"},
        {'moorage_evicted_blobs_total{reason="budget"}': "0x10 5x20"},
        labels={"reason": "minfree"},
    ),
    AlertCase(
        "MoorageHitShareLow",
        "info",
        {
            'moorage_http_sent_bytes_total{cache_status="miss"}': "0+60x120",
            'moorage_http_sent_bytes_total{cache_status="hit"}': "0+40x120",
            'moorage_evicted_bytes_total{reason="budget"}': "0+10x120",
        },
        {
            'moorage_http_sent_bytes_total{cache_status="miss"}': "0+60x120",
            'moorage_http_sent_bytes_total{cache_status="hit"}': "0+40x120",
            'moorage_evicted_bytes_total{reason="budget"}': "10x120",
        },
        at_minutes=100,
    ),
    AlertCase(
        "MoorageAccessLogLoses",
        "info",
        {"moorage_access_log_dropped_lines_total": "0x10 5x20"},
        {"moorage_access_log_dropped_lines_total": "5x30"},
    ),
)


def to_promtool(rules: str) -> dict[str, object]:
    """Make what `promtool test rules` reads, for the rules in the file `rules`."""
    tests = []
    for case in CASES:
        tests.append(_test_of(case, case.fires, is_firing=True))
        tests.append(_test_of(case, case.stays, is_firing=False))
    return {"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}


def _test_of(case: AlertCase, series: Mapping[str, str], *, is_firing: bool) -> dict[str, object]:
    alert = {
        "alertname": case.alert,
        "alertstate": "firing",
        "severity": case.severity,
        **LABELS,
        **case.labels,
    }
    expected = [{"labels": f"ALERTS{{{_join(alert)}}}", "value": 1}] if is_firing else []
    return {
        "name": f"{case.alert} {'fires' if is_firing else 'stays quiet'}",
        "interval": "1m",
        "input_series": [
            {"series": _with_labels(name), "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": f"{case.at_minutes}m",
                "exp_samples": expected,
            }
        ],
    }


def _with_labels(series: str) -> str:
    name, _, labels = series.rstrip("}").partition("{")
    return f"{name}{{{', '.join(filter(None, (labels, _join(LABELS))))}}}"


def _join(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())
