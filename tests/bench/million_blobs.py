"""An index of a million blobs: how long opening, a round and evicting 100,000 of them takes.

    python -m tests.bench.million_blobs [--blobs N] [--evict N] [--files]

With --files the blobs to be evicted have files (small ones), which are removed. How late the event
loop is meanwhile is what hits wait longer.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from engine import capacity
from engine.blobdir import BlobDirectory
from engine.budget import make_space, open_evictor
from engine.index import Index
from engine.layout import Layout
from engine.migrate import migrate
from engine.names import Digest
from engine.settings import EngineSettings, EvictionSettings, UpstreamSettings
from engine.store import Store

_SIZE_BYTES = 4096
_INSERT = """
    INSERT INTO blob
        (digest, size_bytes, is_public, state, stored_at, used_at, use_count, queued_at, queue)
    VALUES (?, ?, 1, 'valid', ?, ?, 1, ?, ?)
"""
_LINK = """
    INSERT INTO link (repository_id, digest, kind, state, media_type, linked_at)
    VALUES (?, ?, 'blob', 'held', '', 0)
"""


@click.command()
@click.option("--blobs", "blob_count", default=1_000_000, show_default=True)
@click.option("--evict", "evict_count", default=100_000, show_default=True)
@click.option("--files", "has_files", is_flag=True)
@click.option("--policy", default=EvictionSettings().policy, show_default=True)
def main(blob_count: int, evict_count: int, policy: str, *, has_files: bool) -> None:
    """Measure eviction in a large index."""
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as directory:
        path = Path(directory)
        click.echo(f"{blob_count:,} blobs, policy {policy}")
        fill(Layout(path), blob_count)
        if has_files:
            make_files(Layout(path), blob_count, evict_count)
        # Down to the low watermark are as many as shall go.
        maxsize_bytes = int((blob_count - evict_count) * _SIZE_BYTES / 0.90)
        asyncio.run(measure(path, maxsize_bytes, policy))


def fill(layout: Layout, blob_count: int) -> None:
    """Make the index, spread over 1,000 repositories."""
    layout.root.mkdir(exist_ok=True)
    migrate(layout.index_path, time.time())
    with closing(sqlite3.connect(layout.index_path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        repositories = ((number, f"team/image-{number}") for number in range(1000))
        connection.executemany(
            "INSERT INTO repository (id, upstream, name) VALUES (?, 'docker.io', ?)", repositories
        )
        connection.executemany(_INSERT, iter_blobs(blob_count))
        connection.executemany(
            _LINK, ((number % 1000, digest_of(number)) for number in range(blob_count))
        )


def iter_blobs(blob_count: int) -> Iterator[tuple[object, ...]]:
    """Iterate over rows: a tenth is new, the rest has proved its worth."""
    since = time.time() - 5 * 24 * 3600
    for number in range(blob_count):
        at = since + number * 0.1
        queue = "new" if number % 10 == 0 else "main"
        yield digest_of(number), _SIZE_BYTES, at, at, at, queue


def digest_of(number: int) -> Digest:
    """Name a blob; digests are spread as real ones are."""
    return Digest(f"sha256:{number * 0x9E3779B97F4A7C15 % 2**64:016x}{number:048x}")


def make_files(layout: Layout, blob_count: int, evict_count: int) -> None:
    """Give those files that may go."""
    for number in range(min(blob_count, 2 * evict_count)):
        path = layout.blob_path(digest_of(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(_SIZE_BYTES))


async def measure(path: Path, maxsize_bytes: int, policy: str) -> None:
    """Open the cache, evict, and say how long things took."""
    upstream = UpstreamSettings("docker.io", "http://127.0.0.1:1", ("docker.io",))
    eviction = EvictionSettings(
        maxsize_bytes=maxsize_bytes,
        maxsize_fraction=None,
        minfree_bytes=0,
        minfree_fraction=None,
        policy=policy,
    )
    settings, layout = EngineSettings(path, (upstream,), eviction), Layout(path)
    blob_directory = BlobDirectory(layout)
    blob_directory.prepare()
    file_system = capacity.measure(path)
    begun_at = time.monotonic()
    index = await Index.open(layout.index_path)
    store = Store(index, blob_directory, make_space(eviction, file_system))
    try:
        # A cache's evictor without the cache: nothing else goes on that finds files missing.
        evictor = await open_evictor(store, settings, file_system)
        click.echo(f"opened and counted in {time.monotonic() - begun_at:.3f} s")
        delays = asyncio.create_task(watch_loop())
        begun_at = time.monotonic()
        tally = await evictor.evict_once()
        took_s = time.monotonic() - begun_at
        count = tally.counts.total()
        click.echo(f"evicted {count:,} in {took_s:.1f} s, {count / took_s:,.0f}/s")
        delays.cancel()
        await asyncio.wait({delays})
        await evictor.aclose()
    finally:
        await store.aclose()


async def watch_loop() -> None:
    """Note by how much a short sleep is late."""
    late: list[float] = []
    try:
        while True:
            begun_at = time.monotonic()
            await asyncio.sleep(0.001)
            late.append(time.monotonic() - begun_at - 0.001)
    finally:
        late.sort()
        p50, p99, worst = (late[int(share * (len(late) - 1))] for share in (0.5, 0.99, 1))
        click.echo(
            f"loop late by ms: p50 {p50 * 1e3:.2f} p99 {p99 * 1e3:.2f} max {worst * 1e3:.1f}"
        )


if __name__ == "__main__":
    main()
