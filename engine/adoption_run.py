"""An adoption begun and ended: what it works on, and how much it may take.

Invariant: `adopt` is called by whoever holds the instance lock and has prepared the directory;
`rehearse` changes nothing, so a server may run meanwhile.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from engine import capacity
from engine.adoption import Adoption
from engine.adoption_intake import Intake
from engine.adoption_plan import Adopted, Allowance
from engine.adoption_survey import Finding, Survey
from engine.blobdir import BlobDirectory
from engine.index import Index
from engine.index_readonly import ReadOnlyConnections
from engine.layout import Layout
from engine.recovery import Recovery
from engine.settings import EngineSettings

Tell = Callable[[Finding], None]


async def adopt(
    found: Survey, upstream: str, settings: EngineSettings, intake: Intake, tell: Tell
) -> Adopted:
    """Take in what was found. Raises `StorageError`, `IndexTooNew` or `CannotShare`."""
    layout = Layout(settings.data_directory)
    index = await Index.open(layout.index_path, Recovery(layout))
    try:
        adoption = Adoption(found, index, BlobDirectory(layout), intake, tell)
        return await adoption.run(upstream, await _measure_allowance(index, settings))
    finally:
        await index.aclose()


async def rehearse(found: Survey, upstream: str, settings: EngineSettings, tell: Tell) -> Adopted:
    """Count what `adopt` would do, by sizes and links; no blob is read."""
    layout = Layout(settings.data_directory)
    async with _open_for_reading(layout) as index:
        adoption = Adoption(found, index, BlobDirectory(layout), None, tell)
        return await adoption.run(upstream, await _measure_allowance(index, settings))


async def _measure_allowance(index: Index | None, settings: EngineSettings) -> Allowance:
    """Say how much fits before eviction would start to undo it."""
    root, eviction = settings.data_directory.absolute(), settings.eviction
    existing = next(path for path in (root, *root.parents) if path.exists())
    file_system = capacity.measure(existing)
    held_bytes = 0 if index is None else (await index.usage()).stored_bytes
    limit = capacity.limit(eviction, file_system, held_bytes)
    room_bytes = int(limit.limit_bytes * eviction.lowwatermark_fraction) - held_bytes
    return Allowance(max(0, room_bytes), file_system.block_bytes)


@asynccontextmanager
async def _open_for_reading(layout: Layout) -> AsyncIterator[Index | None]:
    if not layout.index_path.exists():
        yield None
        return
    async with ReadOnlyConnections(layout.index_path) as connections:
        yield Index(connections)
