"""`inspect-index victims`: what would go next, and after how much more is stored."""

import asyncio

from engine.index_readonly import ReadOnlyConnections
from engine.outlook import Expected, Outlook
from tools.options import Site
from tools.output import Column, Kind, Listing, Report

_COLUMNS = (
    Column("rank", "Rank", Kind.COUNT),
    Column("digest", "Digest"),
    Column("disk_bytes", "On disk", Kind.BYTES),
    Column("used_at", "Last used", Kind.TIME),
    Column("reason", "Reason"),
    Column("needed_bytes", "After so much more", Kind.BYTES),
)


def foretell(site: Site, count: int) -> Report:
    """List the next `count` victims."""
    rows = [
        (
            rank,
            each.victim.digest,
            each.victim.disk_bytes,
            each.victim.used_at,
            each.victim.reason.value,
            each.needed_bytes,
        )
        for rank, each in enumerate(asyncio.run(_foretell(site, count)), 1)
    ]
    return Report(listings=[Listing("victims", _COLUMNS, rows)])


async def _foretell(site: Site, count: int) -> list[Expected]:
    expected: list[Expected] = []
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        async for each in Outlook(site.settings, connections).iter_victims():
            expected.append(each)
            if len(expected) == count:
                break
    return expected
