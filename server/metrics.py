"""`/metrics` on the debug port: everything that is counted, in Prometheus' formats.

Invariant: nothing is counted here, and hits do not wait for a scrape: lines are made some at a
time, with a turn of the loop for others in between. A thread that made them would hold the
interpreter's lock for longer. What reads `/proc` or packs is done in a thread, as it lets go of it.
Source: Prometheus exposition formats 0.0.4, OpenMetrics 1.0.
"""

import asyncio
import gzip
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from server.exchange import Exchange, Handler
from server.instruments import Instruments
from server.metrics_distribution import iter_http, iter_proxy
from server.metrics_engine import iter_cache
from server.metrics_http import iter_access_log, iter_answers, iter_connections
from server.reply import send_whole
from server.response import build_head, content_length

_BUILD = {"version": version("moorage"), "python": platform.python_version()}
# Lines made in one turn of the loop, at some 10 µs each.
_STEP = 32
_END = b"# EOF\n"  # OpenMetrics' last line, which each piece has when it is rendered alone


class Metrics:
    """A handler that answers one path, and leaves all others to `rest`."""

    def __init__(self, path: str, instruments: Instruments, rest: Handler) -> None:
        self._path = path.encode()
        self.instruments = instruments
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
        process = await asyncio.to_thread(lambda: list(self._process.collect()))
        render, content_type = choose_encoder(_text(exchange, b"accept"))
        body = await _render(render, chain(collect(self.instruments), process))
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
    """List everything; what was counted of exchanges, and what the cache does, is of one moment."""
    counted = instruments.counters.snapshot()
    cache, endpoint = instruments.cache, instruments.endpoint
    yield InfoMetricFamily(
        "moorage_build",
        "What runs.",
        value=_BUILD,
    )
    yield from iter_answers(counted)
    if endpoint is not None:
        yield from iter_connections(endpoint)
    if instruments.access_log is not None:
        yield from iter_access_log(instruments.access_log)
    yield from iter_http(counted, endpoint)
    if cache is not None:
        seen = cache.look()
        yield from iter_proxy(counted, seen.upstreams)
        yield from iter_cache(cache.space, seen)


@dataclass(frozen=True, slots=True)
class _One(Collector):
    """A collector of one family, for renderers that take collectors."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.family,)


async def _render(render: Callable[[Collector], bytes], families: Iterable[Metric]) -> bytes:
    """Render family by family, and a large one in parts."""
    pieces: list[bytes] = []
    end = b""
    for family in families:
        help_lines = render(_One(_part(family, [])))
        if help_lines.endswith(_END):
            end = _END
        help_lines = help_lines.removesuffix(end)
        pieces.append(help_lines)
        for start in range(0, len(family.samples), _STEP):
            part = _part(family, family.samples[start : start + _STEP])
            pieces.append(render(_One(part)).removesuffix(end).removeprefix(help_lines))
            await asyncio.sleep(0)
    return b"".join([*pieces, end])


def _part(family: Metric, samples: list[Sample]) -> Metric:
    part = Metric(family.name, family.documentation, family.type, family.unit)
    part.samples = samples
    return part


def _text(exchange: Exchange, name: bytes) -> str:
    return (exchange.header(name) or b"").decode("latin-1")
