"""Counters of exchanges that never were on a connection."""

from engine.settings import UpstreamSettings
from server.counters import Counters
from server.routes import Router
from tests.fakes.exchange import FakeExchange

UPSTREAMS = (
    UpstreamSettings("docker.io", "https://registry-1.docker.io", ("docker.io",)),
    UpstreamSettings("ghcr.io", "https://ghcr.io", ("ghcr.io",)),
)


class Clock:
    """Unix seconds as the test says."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make_counters(*targets: bytes, clock: Clock | None = None) -> Counters:
    """Make counters that have counted a plain 200 for each of `targets`."""
    counters = Counters(Router(UPSTREAMS), clock or Clock())
    for target in targets:
        counters.exchange_over(FakeExchange(target, status=200), 100, 0.01)
    return counters
