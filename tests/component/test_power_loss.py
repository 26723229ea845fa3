"""What a power cut may undo is only the last thing done: bytes, then the name, then the row."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.index_writer import WriterConnection
from tests.fakes.caches import BUSYBOX, read_blob
from tests.fakes.memory_upstream import MemoryUpstream, cache_before, settle_fills
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.anyio


class Trace:
    """What was done to the disk, in order; files by their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self._wrap(monkeypatch, os, "pwritev", lambda fd, *_: f"write {named(fd)}")
        self._wrap(monkeypatch, os, "fsync", lambda fd: f"sync {named(fd)}")
        self._wrap(monkeypatch, Path, "rename", lambda path, to: f"rename {path.name} {to.name}")
        self._wrap(monkeypatch, WriterConnection, "_apply", _describe_rows)

    def _wrap(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: object,
        name: str,
        describe: Callable[..., str],
    ) -> None:
        real = getattr(owner, name)

        def traced(*args: Any, **kwargs: Any) -> Any:
            event = describe(*args)
            result = real(*args, **kwargs)
            if not self.events or self.events[-1] != event:
                self.events.append(event)
            return result

        monkeypatch.setattr(owner, name, traced)


def named(fd: int) -> str:
    return Path(os.readlink(f"/proc/self/fd/{fd}")).name


def _describe_rows(_: object, writes: Any, *__: object) -> str:
    statements = [statement.sql for write in writes for statement in write.statements]
    return "row" if any("INTO blob" in statement for statement in statements) else "other rows"


async def test_a_blob_is_written_synced_renamed_and_then_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = MemoryUpstream()
    digest = upstream.content.add_blob(BUSYBOX.repository, make_bytes(200_000))
    partial, blob, shard = f"sha256-{digest.hex}", digest.hex, digest.hex[:2]
    async with cache_before(tmp_path, upstream) as cache:
        trace = Trace(monkeypatch)
        await read_blob(cache, BUSYBOX, digest)
        await settle_fills(cache)
        assert [event for event in trace.events if event != "other rows"] == [
            f"write {partial}",
            f"sync {partial}",
            "sync sha256",  # a new directory
            f"rename {partial} {blob}",
            f"sync {shard}",
            "row",
        ]
        monkeypatch.undo()


async def test_a_snapshot_is_synced_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cache_before(tmp_path, MemoryUpstream()) as cache:
        trace = Trace(monkeypatch)
        assert await cache._upkeep._snapshots.take_once()
        assert [event for event in trace.events if event != "other rows"] == [
            "sync index.snapshot.tmp",
            "rename index.snapshot.tmp index.snapshot",
            f"sync {tmp_path.name}",
        ]
        monkeypatch.undo()
