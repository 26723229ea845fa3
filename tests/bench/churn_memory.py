"""Whether memory grows over an hour of small fills and evictions, with hits beside them.

    python -m tests.bench.churn_memory [--minutes N] [--rate FILLS]

A line a minute: what the process has resident, its open descriptors and threads. Each fill is of
another blob than the thousands before it, and the budget holds one in eighteen.
"""

import os
import tempfile
from pathlib import Path

import click

from tests.bench.churn_over_http import Bench
from tests.bench.memory import resident_bytes
from tools.bench_content import KIB, MIB, Sizes, make_content
from tools.bench_lab import Cpus
from tools.bench_pull import fetch
from tools.bench_servers import moorage, start_upstream

_ROOT = Path(__file__).resolve().parents[2]
_BLOB_COUNT = 6_000
_CACHE_BYTES = 16 * MIB
_HITS = 50.0  # a second
_MINUTE_S = 60.0


@click.command()
@click.option("--minutes", default=60, show_default=True)
@click.option("--rate", default=80.0, show_default=True, help="fills a second")
def main(minutes: int, rate: float) -> None:
    """Watch the memory of a mirror under churn."""
    cpus = Cpus(*sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as directory:
        path = Path(directory)
        for name in ("content", "upstream", "mirror"):
            (path / name).mkdir()
        sizes = Sizes(MIB, MIB, MIB, KIB, 48 * KIB, _BLOB_COUNT, 0)
        content = make_content(path / "content", sizes)
        with (
            start_upstream(path / "upstream", cpus.client, content) as upstream,
            moorage("moorage", _ROOT, _CACHE_BYTES).launch(
                path / "mirror", cpus.server, upstream.url
            ) as server,
        ):
            bench = Bench(server, content, cpus.client)
            fetch(server.address, content.app.blobs[1])
            say(0, server.pid)
            count = int(rate * _MINUTE_S)
            for minute in range(minutes):
                first = minute * count
                blobs = [content.churn[n % _BLOB_COUNT] for n in range(first, first + count)]
                with bench.churn(blobs, rate) as pulled:
                    hits = bench.pace(_HITS, _MINUTE_S)
                assert pulled[0].failed_count + hits.failed_count == 0, "not all were served"
                say(minute + 1, server.pid)


def say(minute: int, pid: int) -> None:
    """Print what the process has now."""
    descriptors, threads = (len(os.listdir(f"/proc/{pid}/{kind}")) for kind in ("fd", "task"))
    click.echo(
        f"minute {minute:3}  resident {resident_bytes(pid) / MIB:6.2f} MiB  descriptors"
        f" {descriptors:4}  threads {threads:3}"
    )


if __name__ == "__main__":
    main()
