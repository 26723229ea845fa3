"""`inspect-index summary`: how much is there, of what, how old, and how the cache fares."""

import asyncio
import time
from collections.abc import Mapping

from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_totals import IndexTotals
from engine.index_views import RepositoryView, Share
from engine.outlook import Budget, read_budget
from server.control_messages import Running
from server.counted import HITS, NONE
from tools.control_client import find_server
from tools.options import Site
from tools.output import Column, Field, Kind, Listing, Report
from tools.waiting import shown_wait

_TOP = 10
_HOUR_S, _DAY_S = 3600.0, 86_400.0
# By last use; the last one is open.
_AGES = (
    ("under an hour", _HOUR_S),
    ("under a day", _DAY_S),
    ("under 3 days", 3 * _DAY_S),
    ("under a week", 7 * _DAY_S),
    ("under 30 days", 30 * _DAY_S),
    ("older", float("inf")),
)


def hit_share(answers: Mapping[str, int]) -> float | None:
    """The share of answers from the cache for which nothing was fetched; None without any. Pure."""
    counted = sum(count for status, count in answers.items() if status != NONE)
    hits = sum(answers.get(status, 0) for status in HITS)
    return hits / counted if counted else None


def summarize(site: Site) -> Report:
    """Read everything; asks the running server, if there is one, what only it knows."""
    return asyncio.run(_summarize(site, find_server(site.layout), time.time()))


async def _summarize(site: Site, server: Running | None, now: float) -> Report:
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        index = IndexInspection(connections)
        with shown_wait("counting", 3 * IndexTotals.SHARD_COUNT) as advance:
            totals = IndexTotals(connections, advance)
            sums = await totals.sum_up()
            views = await totals.describe_repositories(is_own_wanted=False)
            shares = await totals.share_upstreams()
        budget = await read_budget(site.settings, index)
        largest = [await index.describe_repository(each.location) for each in _largest(views)]
        ages = await _share_ages(index, now)
    fields = [
        Field("data_directory", "Data directory", str(site.layout.root)),
        Field("blob_count", "Blobs", sums.total.blob_count, Kind.COUNT),
        Field("stored_bytes", "Their sizes", sums.total.stored_bytes, Kind.BYTES),
        Field("leaving_count", "Being evicted", sums.leaving_count, Kind.COUNT),
        Field("reused_count", "Used again after their pull", sums.reused_count, Kind.COUNT),
        Field("repository_count", "Repositories", len(views), Kind.COUNT),
        Field("tag_count", "Tags", sum(view.tag_count for view in views), Kind.COUNT),
        *_budget_fields(budget, server),
        *_server_fields(server),
    ]
    listings = [
        Listing("ages", _share_columns("age", "Last used"), ages),
        Listing("upstreams", _share_columns("upstream", "Upstream"), _share_rows(shares)),
        Listing("largest_repositories", _REPOSITORY_COLUMNS, _rows(largest)),
    ]
    return Report(fields, listings)


_REPOSITORY_COLUMNS = (
    Column("name", "Repository"),
    Column("blob_count", "Blobs", Kind.COUNT),
    Column("stored_bytes", "Size", Kind.BYTES),
    Column("own_bytes", "Not shared", Kind.BYTES),
    Column("used_at", "Last used", Kind.TIME),
)


def _share_columns(key: str, title: str) -> list[Column]:
    return [
        Column(key, title),
        Column("blob_count", "Blobs", Kind.COUNT),
        Column("stored_bytes", "Size", Kind.BYTES),
    ]


def _share_rows(shares: Mapping[str, Share]) -> list[tuple[str, int, int]]:
    return [(name, each.blob_count, each.stored_bytes) for name, each in shares.items()]


def _largest(views: list[RepositoryView]) -> list[RepositoryView]:
    return sorted(views, key=lambda view: view.stored_bytes, reverse=True)[:_TOP]


def _rows(views: list[RepositoryView]) -> list[tuple[str, int, int, int, float | None]]:
    return [
        (
            f"{view.upstream}/{view.name}",
            view.blob_count,
            view.stored_bytes,
            view.own_bytes,
            view.used_at,
        )
        for view in views
    ]


async def _share_ages(index: IndexInspection, now: float) -> list[tuple[str, int, int]]:
    rows = []
    # A clock that was set back leaves uses in the future: they are young.
    until = float("inf")
    for name, age_s in _AGES:
        since = now - age_s
        share = await index.share_used(since, until)
        rows.append((name, share.blob_count, share.stored_bytes))
        until = since
    return rows


def _budget_fields(budget: Budget, server: Running | None) -> list[Field]:
    # Where a server runs, it is by its configuration and not by the one named here.
    limit_bytes = budget.limit_bytes if server is None else server.limit_bytes
    used_bytes = budget.used_bytes
    reserved_bytes = 0 if server is None else server.reserved_bytes
    return [
        Field("limit_bytes", "Budget", limit_bytes, Kind.BYTES),
        Field("used_bytes", "On disk", used_bytes, Kind.BYTES),
        Field("blob_disk_bytes", "  blobs", budget.blob_bytes, Kind.BYTES),
        Field("partial_bytes", "  partials", budget.partial_bytes, Kind.BYTES),
        Field("quarantine_bytes", "  quarantine", budget.quarantine_bytes, Kind.BYTES),
        Field("reserved_bytes", "Reserved by fills", reserved_bytes, Kind.BYTES),
        Field("used_share", "Share of the budget", used_bytes / max(1, limit_bytes), Kind.SHARE),
    ]


def _server_fields(server: Running | None) -> list[Field]:
    if server is None:
        return [Field("server_pid", "Server", None), Field("hit_share", "Hits", None)]
    return [
        Field("server_pid", "Server", server.pid, Kind.TEXT),
        Field("server_started_at", "  since", server.started_at, Kind.TIME),
        Field("hit_share", "Hits", hit_share(server.answers), Kind.SHARE),
        *(
            Field(f"answers_{status}", f"  {status}", count, Kind.COUNT)
            for status, count in sorted(server.answers.items())
        ),
    ]
