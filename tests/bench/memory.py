"""What the server's memory does: idle, with a large index, under a crowd, under cold fills.

    python -m tests.bench.memory [--readers N] [--fills N] [--blobs N]

Resident bytes of one process; each case has a server of its own, so that none is measured with what
another has left behind. The crowd reads a blob of 100 MiB, by a few kilobytes a second each; what
then waits in sockets is the kernel's, and told of on standard error.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from engine.layout import Layout
from server.tcp_memory import parse_used_pages
from tests.bench.million_blobs import fill
from tools.bench_content import MIB, Sizes
from tools.bench_lab import Cpus, Lab, open_lab
from tools.bench_process import peak_rss_bytes, reset_peak_rss
from tools.bench_pull import Plan, PullResult, fetch
from tools.bench_servers import Server, Target, moorage
from tools.bench_slow import Crowd

_ROOT = Path(__file__).resolve().parents[2]
_CROWD_S = 10.0


@dataclass(frozen=True, slots=True)
class Used:
    """What a server used before something was asked of it, and at most meanwhile."""

    before_bytes: int
    peak_bytes: int

    def __str__(self) -> str:
        added_bytes = self.peak_bytes - self.before_bytes
        return (
            f"{self.before_bytes / MIB:6.1f} MiB, at most {self.peak_bytes / MIB:.1f}: "
            f"{added_bytes / MIB:+.1f}"
        )


@click.command()
@click.option("--readers", "reader_count", default=1000, show_default=True)
@click.option("--fills", "fill_count", default=64, show_default=True)
@click.option("--blobs", "blob_count", default=1_000_000, show_default=True)
def main(reader_count: int, fill_count: int, blob_count: int) -> None:
    """Measure memory."""
    cpus = Cpus(*sorted(os.sched_getaffinity(0))[:2])
    sizes = Sizes(large=100 * MIB, cold=MIB, limited=MIB, churn_count=fill_count, image_count=0)
    with open_lab(cpus, sizes) as lab:
        target = moorage("moorage", _ROOT, 4 << 30)
        click.echo(f"idle and a few hits           {measure(lab, target, lambda _: None)}")
        large = with_index(target, blob_count)
        click.echo(f"{blob_count:>9,} blobs in the index {measure(lab, large, lambda _: None)}")
        crowd = measure(lab, target, lambda server: read_slowly(lab, server, reader_count))
        click.echo(f"{reader_count:>9,} slow downloads     {crowd}")
        cold = measure(lab, target, lambda server: pull(lab, server))
        click.echo(f"{fill_count:>9,} cold fills at once  {cold}")


def measure(lab: Lab, target: Target, work: Callable[[Server], None]) -> Used:
    """Start a server, ask it for a little, then do `work`."""
    with lab.run_target(target) as server:
        for blob in lab.content.app.blobs:
            fetch(server.address, blob)
            fetch(server.address, blob)
        before_bytes = resident_bytes(server.pid)
        reset_peak_rss(server.pid)
        work(server)
        return Used(before_bytes, peak_rss_bytes(server.pid))


def resident_bytes(pid: int) -> int:
    """What a process has resident now (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def with_index(target: Target, blob_count: int) -> Target:
    """Make a target that finds an index of so many blobs in its data directory."""

    def launch(directory: Path, cpu: int, upstream_url: str) -> Server:
        fill(Layout(directory / "data"), blob_count)
        return target.launch(directory, cpu, upstream_url)

    return Target(target.name, launch)


def read_slowly(lab: Lab, server: Server, count: int) -> None:
    """Let a crowd read the large blob, which is stored."""
    crowd = Crowd(server.address, lab.content.app.blobs[-1].path, count, _CROWD_S)
    client = lab.start_client("bench_slow", crowd)
    assert client.read_line().startswith("reading"), "the crowd was not served"
    used_pages = parse_used_pages(Path("/proc/net/sockstat").read_bytes())
    lost = client.result().decode().strip()
    used_mib = used_pages * os.sysconf("SC_PAGE_SIZE") / MIB
    click.echo(f"          {lost}, {used_mib:.0f} MiB of the kernel's for TCP", err=True)


def pull(lab: Lab, server: Server) -> None:
    """Ask for every blob of the churn at once."""
    plan = Plan(server.address, [[[blob]] for blob in lab.content.churn])
    result = msgspec.json.decode(lab.start_client("bench_pull", plan).result(), type=PullResult)
    assert result.failed_count == 0, f"{result.failed_count} fills failed"


if __name__ == "__main__":
    main()
