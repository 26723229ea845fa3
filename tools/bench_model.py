"""What a benchmark measures, and how rounds become figures. Pure.

Invariant: a ratio is taken within one round, between neighbours in time, and only then is the
median of the rounds taken; so what else the machine does meanwhile falls on both sides.
"""

from collections.abc import Sequence
from enum import Enum
from statistics import median

import msgspec


class Fetch(msgspec.Struct, frozen=True):
    """One request of a client and what its answer must be."""

    path: str
    size_bytes: int
    xxh3: str  # xxh3-128 of the body: sha256 would cost the clients more than the transfer


class Sample(msgspec.Struct, frozen=True):
    """One round of one case at one target. Times are in seconds, `cpu_s` is the target's."""

    request_count: int
    body_bytes: int
    elapsed_s: float
    p50_s: float = 0.0  # of a whole response
    p99_s: float = 0.0
    first_byte_s: float = 0.0  # median of the clients, where it is measured
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    upstream_count: int = 0
    failed_count: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.request_count / self.elapsed_s

    @property
    def mb_s(self) -> float:
        """Megabytes (10^6 bytes) of bodies a second."""
        return self.body_bytes / self.elapsed_s / 1e6

    @property
    def cpu_s_per_gb(self) -> float:
        """CPU seconds for 10^9 bytes of bodies; 0 where none was sent."""
        return self.cpu_s / self.body_bytes * 1e9 if self.body_bytes else 0.0

    @property
    def cpu_s_per_10k(self) -> float:
        """CPU seconds for 10,000 requests."""
        return self.cpu_s / self.request_count * 1e4 if self.request_count else 0.0


class Metric(Enum):
    """What a case is compared by."""

    RATE = "req/s"
    THROUGHPUT = "MB/s"
    TIME = "s"
    P99 = "p99 ms"
    CPU = "CPU s/GB"


def measure(metric: Metric, sample: Sample) -> float:
    """The figure that `metric` names, in its unit."""
    match metric:
        case Metric.RATE:
            return sample.rate
        case Metric.THROUGHPUT:
            return sample.mb_s
        case Metric.TIME:
            return sample.elapsed_s
        case Metric.P99:
            return sample.p99_s * 1e3
        case Metric.CPU:
            return sample.cpu_s_per_gb


def compare(metric: Metric, ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """How many times better we are: the median of the rounds' ratios. Above 1 is better."""
    ratios = []
    for our, their in zip(ours, theirs, strict=True):
        a, b = measure(metric, our), measure(metric, their)
        if metric in (Metric.TIME, Metric.P99, Metric.CPU):
            a, b = b, a
        ratios.append(a / b if b else float("inf"))
    return median(ratios)


class Figures(msgspec.Struct, frozen=True):
    """What is told of one case at one target: medians of its rounds, but where noted."""

    req_s: float
    mb_s: float
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    first_byte_ms: float
    cpu_s_per_gb: float
    cpu_s_per_10k: float
    peak_rss_mib: float  # the most
    upstream_count: float
    failed_count: int  # the sum


def summarize(samples: Sequence[Sample]) -> Figures:
    """Bring the rounds of one case at one target together."""
    return Figures(
        req_s=median(s.rate for s in samples),
        mb_s=median(s.mb_s for s in samples),
        elapsed_s=median(s.elapsed_s for s in samples),
        p50_ms=median(s.p50_s for s in samples) * 1e3,
        p99_ms=median(s.p99_s for s in samples) * 1e3,
        first_byte_ms=median(s.first_byte_s for s in samples) * 1e3,
        cpu_s_per_gb=median(s.cpu_s_per_gb for s in samples),
        cpu_s_per_10k=median(s.cpu_s_per_10k for s in samples),
        peak_rss_mib=max(s.peak_rss_bytes for s in samples) / 2**20,
        upstream_count=median(s.upstream_count for s in samples),
        failed_count=sum(s.failed_count for s in samples),
    )
