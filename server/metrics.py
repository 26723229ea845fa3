"""`/metrics` on the debug port: everything that is counted, in Prometheus' formats.

Invariant: nothing is counted here, and hits do not wait for a scrape: numbers are read in one turn
of the loop, then rendered family by family with a turn for others in between. What reads `/proc`
or packs is done in a thread, as it releases the interpreter's lock.
Source: Prometheus exposition formats 0.0.4, OpenMetrics 1.0.
"""

import asyncio
import gzip
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from server.exchange import Exchange, Handler
from server.instruments import Instruments
from server.metric_families import level
from server.metrics_distribution import iter_http, iter_proxy
from server.metrics_engine import iter_cache
from server.metrics_http import iter_access_log, iter_answers, iter_connections
from server.reply import send_whole
from server.response import build_head, content_length

_END = b"# EOF\n"  # OpenMetrics' last line, which each piece has when it is rendered alone


class Metrics:
    """A handler that answers one path, and leaves all others to `rest`."""

    def __init__(self, path: str, instruments: Instruments, rest: Handler) -> None:
        self._path = path.encode()
        self._instruments = instruments
        self._rest = rest
        self._process = ProcessCollector(registry=CollectorRegistry())

    def respond_now(self, exchange: Exchange) -> bool:
        """Leave the path to `respond`."""
        return not self._is_asked(exchange) and self._rest.respond_now(exchange)

    async def respond(self, exchange: Exchange) -> None:
        """Answer a scrape."""
        if not self._is_asked(exchange):
            await self._rest.respond(exchange)
            return
        families = list(collect(self._instruments))
        families += await asyncio.to_thread(lambda: list(self._process.collect()))
        render, content_type = choose_encoder(_text(exchange, b"accept"))
        body = await _render(render, families)
        fields = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
        if gzip_accepted(_text(exchange, b"accept-encoding")):
            body = await asyncio.to_thread(gzip.compress, body, 6)
            fields.append(("Content-Encoding", "gzip"))
        head = build_head(200, [*fields, content_length(len(body))])
        send_whole(exchange, 200, head, body)

    def _is_asked(self, exchange: Exchange) -> bool:
        is_reading = exchange.method in (b"GET", b"HEAD")
        return is_reading and exchange.target.partition(b"?")[0] == self._path


def collect(instruments: Instruments) -> Iterator[Metric]:
    """Read all numbers, in one turn of the loop."""
    counted = instruments.counters.snapshot()
    cache, endpoint = instruments.cache, instruments.endpoint
    yield InfoMetricFamily(
        "moorage_build",
        "What runs.",
        value={"version": version("moorage"), "python": platform.python_version()},
    )
    yield level("moorage_start_time_seconds", "When it was started.", counted.started_at)
    yield from iter_answers(counted)
    if endpoint is not None:
        yield from iter_connections(endpoint)
    if instruments.access_log is not None:
        yield from iter_access_log(instruments.access_log)
    yield from iter_http(counted, endpoint)
    if cache is not None:
        seen = cache.look()
        yield from iter_proxy(counted, seen.upstreams)
        yield from iter_cache(cache, seen)


@dataclass(frozen=True, slots=True)
class _One(Collector):
    """A collector of one family, for renderers that take collectors."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.family,)


async def _render(render: Callable[[Collector], bytes], families: Iterable[Metric]) -> bytes:
    """Render piece by piece; the whole would take some milliseconds of the loop's time."""
    pieces = []
    is_open_metrics = False
    for family in families:
        piece = render(_One(family))
        if piece.endswith(_END):
            is_open_metrics = True
            piece = piece.removesuffix(_END)
        pieces.append(piece)
        await asyncio.sleep(0)
    return b"".join([*pieces, _END] if is_open_metrics else pieces)


def _text(exchange: Exchange, name: bytes) -> str:
    return (exchange.header(name) or b"").decode("latin-1")
