"""`inspect-index check` and `rebuild`: index and files held against each other."""

import asyncio

from engine.audit import Audit, Finding, Kind
from engine.blobdir import BlobDirectory
from engine.errors import IndexDamaged
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.rebuild import rebuild
from tools.options import Site
from tools.output import Column, Field, Listing, Report
from tools.output import Kind as Shown

_COLUMNS = (
    Column("kind", "Wrong"),
    Column("path", "Path"),
    Column("digest", "Digest"),
    Column("detail", "Detail"),
    Column("action", "To do"),
)


def check(site: Site) -> Report:
    """Compare index and files; the report's only listing has what is wrong."""
    try:
        findings = asyncio.run(_audit(site))
    except IndexDamaged as exc:
        path = site.layout.index_path
        findings = [Finding(Kind.DAMAGED_INDEX, path, None, str(exc))]
    rows = [
        (each.kind.value, str(each.path), each.digest, each.detail, each.action)
        for each in findings
    ]
    return Report(listings=[Listing("findings", _COLUMNS, rows)])


async def _audit(site: Site) -> list[Finding]:
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        audit = Audit(IndexInspection(connections), BlobDirectory(site.layout))
        return await audit.run()


def rebuild_index(site: Site, *, is_anew: bool) -> Report:
    """Make index and files agree, and tell what that took. Raises `DirectoryInUse`."""
    done = asyncio.run(rebuild(site.layout.root, is_anew=is_anew))
    tally = done.tally
    fields = [
        Field("file_count", "Files", tally.file_count, Shown.COUNT),
        Field("adopted_count", "Rows added", tally.adopted_count, Shown.COUNT),
        Field("dropped_count", "Rows dropped", tally.dropped_count, Shown.COUNT),
        Field("foreign_count", "Foreign files left", len(tally.foreign), Shown.COUNT),
        Field("damage", "Damage", done.damage),
        Field("set_aside", "Old index", str(done.set_aside) if done.set_aside else None),
        Field("duration_s", "Took", round(done.duration_s, 3), Shown.SPAN),
        Field("files_per_s", "Files a second", int(tally.file_count / done.duration_s)),
    ]
    return Report(fields, [Listing("foreign", [Column("path", "Path")], [*zip(tally.foreign)])])
