"""How late hits are while small fills and evictions go on by thousands, in turns with quiet.

    python -m tests.bench.churn_over_http [--fills N] [--share PERCENT] [--rate FILLS]

The mirror is a process of its own on one processor; upstream, the clients that churn, and the open
loop that asks for one small blob at 30 % of the peak rate, share another. Each blob of the churn is
asked for once, so each is a fill, and the budget is a small share of what flows.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import msgspec

from tests.fakes.small_caches import KIB, disk_bytes
from tools.bench_content import MIB, Content, Sizes, make_content
from tools.bench_lab import Client, Cpus
from tools.bench_model import Fetch
from tools.bench_pace import Pace, PaceResult
from tools.bench_process import Command
from tools.bench_pull import ACCEPT, Plan, PullResult, fetch, stages_of
from tools.bench_run import MAX_PACE, NOISE_NICE, PEAK_S, SHARE_OF_PEAK
from tools.bench_servers import Server, find_program, moorage, start_upstream
from tools.bench_wrk import Load, run_wrk

_BLOB_BYTES = 48 * KIB
_CLIENTS = 8
_ROUNDS = 5
_ROOT = Path(__file__).resolve().parents[2]


class Bench:
    """A mirror, its upstream, and who asks it."""

    def __init__(self, server: Server, content: Content, cpu: int) -> None:
        self._server = server
        self._small = content.app.blobs[1]
        self._cpu = cpu

    def find_rate(self) -> float:
        """Measure the peak rate of the hits, and return the rate to ask at."""
        fetch(self._server.address, self._small)
        load = Load(self._small.path, 32, (ACCEPT,))
        wrk = find_program("wrk")
        assert wrk is not None, "wrk is not installed"
        peak = run_wrk(wrk, self._server.url, load, PEAK_S, self._cpu)
        return min(MAX_PACE, peak.request_count / peak.duration_us * 1e6 * SHARE_OF_PEAK)

    def pace(self, rate: float, seconds: float) -> PaceResult:
        """Ask at a fixed rate."""
        asked = self._small
        plan = Pace(self._server.address, asked.path, asked.size_bytes, rate, seconds)
        return msgspec.json.decode(self._start("bench_pace", plan).result(), type=PaceResult)

    @contextmanager
    def churn(self, blobs: Sequence[Fetch], rate: float) -> Iterator[list[PullResult]]:
        """Ask for each of `blobs` once, `rate` a second in all; what came of it is appended."""
        clients = [stages_of(blobs[first::_CLIENTS]) for first in range(_CLIENTS)]
        plan = Plan(self._server.address, clients, rate * _BLOB_BYTES / _CLIENTS)
        client, results = self._start("bench_pull", plan, nice=NOISE_NICE), list[PullResult]()
        yield results
        results.append(msgspec.json.decode(client.result(), type=PullResult))

    def _start(self, module: str, plan: msgspec.Struct, nice: int = 0) -> Client:
        argv = [sys.executable, "-m", f"tools.{module}"]
        return Client(Command(argv, self._cpu, nice=nice), plan)


class Watch:
    """Looks every half second at what the files of a data directory take."""

    def __init__(self, path: Path) -> None:
        self.peak_bytes = 0
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, disk_bytes(self._path))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@click.command()
@click.option("--fills", "fill_count", default=20_000, show_default=True)
@click.option("--share", "share_percent", default=5.0, show_default=True, help="of what flows")
@click.option("--rate", default=200.0, show_default=True, help="fills a second")
def main(fill_count: int, share_percent: float, rate: float) -> None:
    """Measure how late hits are, quiet and under churn."""
    cpus = Cpus(*sorted(os.sched_getaffinity(0))[:2])
    maxsize_bytes = int(fill_count * _BLOB_BYTES * share_percent / 100)
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as directory:
        path = Path(directory)
        for name in ("content", "upstream", "mirror"):
            (path / name).mkdir()
        sizes = Sizes(MIB, MIB, MIB, KIB, _BLOB_BYTES, fill_count, 0)
        content = make_content(path / "content", sizes)
        with (
            start_upstream(path / "upstream", cpus.client, content) as upstream,
            moorage("moorage", _ROOT, maxsize_bytes).launch(
                path / "mirror", cpus.server, upstream.url
            ) as server,
            Watch(path / "mirror" / "data") as watch,
        ):
            click.echo(f"budget   {maxsize_bytes:>12,} bytes")
            measure(Bench(server, content, cpus.client), content.churn, rate)
            final_bytes = disk_bytes(path / "mirror" / "data")
        click.echo(f"files    {watch.peak_bytes:>12,} bytes at most, {final_bytes:,} at the end")


def measure(bench: Bench, blobs: Sequence[Fetch], fill_rate: float) -> None:
    """Take turns, and say what came of it."""
    rate = bench.find_rate()
    click.echo(f"hits     {rate:>12,.0f} a second")
    seconds, ratios = len(blobs) / fill_rate / _ROUNDS, list[float]()
    for number in range(_ROUNDS):
        quiet = bench.pace(rate, seconds)
        with bench.churn(blobs[number::_ROUNDS], fill_rate) as pulled:
            busy = bench.pace(rate, seconds)
        ratios.append(busy.p99_s / quiet.p99_s)
        click.echo(
            f"p99      {quiet.p99_s * 1e3:>9.2f} ms quiet, {busy.p99_s * 1e3:.2f} ms under"
            f" {60 * pulled[0].request_count / pulled[0].elapsed_s:,.0f} fills/min;"
            f" p50 {quiet.p50_s * 1e3:.2f} and {busy.p50_s * 1e3:.2f}; failed"
            f" {quiet.failed_count + busy.failed_count} hits, {pulled[0].failed_count} fills"
        )
    click.echo(f"ratio    {median(ratios):>12.2f}, the median of {_ROUNDS}")


if __name__ == "__main__":
    main()
