"""`inspect-index blobs`, `repositories`, `tags`: what is in the index, filtered and sorted."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

from engine.explanation import is_fresh
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_totals import IndexTotals
from engine.index_views import BlobFilter, RepositoryView, TagView
from engine.names import Location
from engine.settings import UpstreamSettings
from engine.subject import parse_location, parse_upstream
from tools.options import Decorator, Site, grouped, site_command
from tools.output import Column, Kind, Listing, Report, Value, show
from tools.parameters import moment, size
from tools.waiting import shown_wait

_BLOBS = (
    Column("digest", "Digest"),
    Column("size_bytes", "Size", Kind.BYTES),
    Column("kind", "Kind"),
    Column("state", "State"),
    Column("is_public", "Public"),
    Column("stored_at", "Stored", Kind.TIME),
    Column("used_at", "Last used", Kind.TIME),
    Column("use_count", "Uses", Kind.COUNT),
    Column("verified_at", "Verified", Kind.TIME),
    Column("repository_count", "Repositories", Kind.COUNT),
)
_REPOSITORIES = (
    Column("upstream", "Upstream"),
    Column("name", "Repository"),
    Column("tag_count", "Tags", Kind.COUNT),
    Column("link_count", "Links", Kind.COUNT),
    Column("blob_count", "Blobs", Kind.COUNT),
    Column("stored_bytes", "Size", Kind.BYTES),
    Column("own_bytes", "Not shared", Kind.BYTES),
    Column("used_at", "Last used", Kind.TIME),
)
_TAGS = (
    Column("name", "Tag"),
    Column("digest", "Digest"),
    Column("media_type", "Media type"),
    Column("checked_at", "Checked", Kind.TIME),
    Column("changed_at", "Changed", Kind.TIME),
    Column("is_stored", "Stored"),
    Column("is_fresh", "Fresh"),
)

Row = tuple[Value, ...]
_SLACK = 10_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which are listed; None = whichever."""

    upstream: str | None = None
    repository: str | None = None
    larger_than: int | None = None
    older_than: float | None = None
    unused_since: float | None = None


@dataclass(frozen=True, slots=True)
class Ordering:
    """In which order, and how many at most."""

    sort: str
    is_reversed: bool = False
    limit: int | None = None


def _selecting() -> Decorator:
    return grouped(
        "selection",
        Selection,
        click.option("--upstream", metavar="NAME", help="Of one upstream."),
        click.option("--repository", metavar="NAME", help="Of one repository."),
        click.option("--larger-than", type=size, metavar="SIZE", help="Such as 100MB."),
        click.option("--older-than", type=moment, metavar="TIME", help="7d, or a date."),
        click.option("--unused-since", type=moment, metavar="TIME", help="Last used before."),
    )


def _ordering(columns: Sequence[Column]) -> Decorator:
    keys = [column.key for column in columns]
    return grouped(
        "ordering",
        Ordering,
        click.option(
            "--sort",
            type=click.Choice(keys),
            default=keys[0],
            show_default=True,
            help="Sizes and counts largest first, times oldest first.",
        ),
        click.option("--reverse", "is_reversed", is_flag=True, help="The other way round."),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many."),
    )


@click.command()
@_selecting()
@_ordering(_BLOBS)
@site_command
def blobs(site: Site, *, selection: Selection, ordering: Ordering) -> None:
    """List stored blobs, manifests among them. --older-than: stored before."""
    upstream, location = locate(selection, site.settings.upstreams)
    wanted = BlobFilter(
        upstream,
        location.repository if location else None,
        selection.larger_than,
        selection.older_than,
        selection.unused_since,
    )
    rows = asyncio.run(_list_blobs(site, wanted, ordering))
    show(_report("blobs", _BLOBS, rows, ordering), is_json=site.is_json)


@click.command()
@_selecting()
@_ordering(_REPOSITORIES)
@site_command
def repositories(site: Site, *, selection: Selection, ordering: Ordering) -> None:
    """List repositories, and what is stored of them. --older-than is --unused-since here."""
    rows = [
        _row(_REPOSITORIES, view)
        for view in asyncio.run(_list_repositories(site, selection))
        if (selection.larger_than is None or view.stored_bytes > selection.larger_than)
        and _is_before(view.used_at, selection.unused_since)
        and _is_before(view.used_at, selection.older_than)
    ]
    show(_report("repositories", _REPOSITORIES, rows, ordering), is_json=site.is_json)


@click.command()
@_selecting()
@_ordering(_TAGS)
@site_command
def tags(site: Site, *, selection: Selection, ordering: Ordering) -> None:
    """List tags, what they mean, and when upstream last said so. --older-than: changed before."""
    if selection.larger_than is not None or selection.unused_since is not None:
        raise click.UsageError("tags have no size and no use: --larger-than and --unused-since")
    now = time.time()
    rows = [
        (*_row(_TAGS[:-1], view), is_fresh(view, site.settings.upstreams, now))
        for view in asyncio.run(_list_tags(site, selection))
        if _is_before(view.changed_at, selection.older_than)
    ]
    show(_report("tags", _TAGS, rows, ordering), is_json=site.is_json)


def locate(
    selection: Selection, upstreams: Sequence[UpstreamSettings]
) -> tuple[str | None, Location | None]:
    """Find out what `--upstream` and `--repository` mean together. Pure; raises `InvalidName`."""
    upstream = selection.upstream and parse_upstream(selection.upstream, upstreams)
    if selection.repository is None:
        return upstream, None
    prefix = f"{upstream}/" if upstream else ""
    location = parse_location(f"{prefix}{selection.repository}", upstreams)
    return location.upstream, location


async def _list_blobs(site: Site, wanted: BlobFilter, ordering: Ordering) -> list[Row]:
    rows: list[Row] = []
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        async for view in IndexInspection(connections).iter_blobs(wanted):
            rows.append(_row(_BLOBS, view))
            if ordering.limit is not None and len(rows) > ordering.limit + _SLACK:
                # Of a million, only those are kept that may be shown.
                rows = sort_rows(_BLOBS, rows, ordering)
    return rows


async def _list_repositories(site: Site, selection: Selection) -> list[RepositoryView]:
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        upstream, location = locate(selection, site.settings.upstreams)
        if location is not None:
            index = IndexInspection(connections)
            chosen = await _choose_locations(site, index, selection)
            return [await index.describe_repository(each) for each in chosen]
        with shown_wait("counting", 2 * IndexTotals.SHARD_COUNT) as advance:
            totals = IndexTotals(connections, advance)
            views = await totals.describe_repositories(is_own_wanted=True)
        return [view for view in views if upstream in (None, view.upstream)]


async def _list_tags(site: Site, selection: Selection) -> list[TagView]:
    async with ReadOnlyConnections(site.layout.index_path) as connections:
        index = IndexInspection(connections)
        views: list[TagView] = []
        for location in await _choose_locations(site, index, selection):
            views += await index.list_tags(location)
        return views


async def _choose_locations(
    site: Site, index: IndexInspection, selection: Selection
) -> list[Location]:
    upstream, location = locate(selection, site.settings.upstreams)
    return [
        each
        for each in await index.list_locations()
        if upstream in (None, each.upstream) and location in (None, each)
    ]


def _report(key: str, columns: Sequence[Column], rows: list[Row], ordering: Ordering) -> Report:
    return Report(listings=[Listing(key, columns, sort_rows(columns, rows, ordering))])


def sort_rows(columns: Sequence[Column], rows: list[Row], ordering: Ordering) -> list[Row]:
    """Sort rows by a column, and cut to the limit; what has no value comes last. Pure."""
    place = [column.key for column in columns].index(ordering.sort)
    is_number = columns[place].kind in (Kind.BYTES, Kind.COUNT)
    known = [row for row in rows if row[place] is not None]
    known.sort(
        key=lambda row: _comparable(row[place]), reverse=is_number is not ordering.is_reversed
    )
    unknown = [row for row in rows if row[place] is None]
    return [*known, *unknown][: ordering.limit]


def _row(columns: Sequence[Column], view: object) -> Row:
    return tuple(getattr(view, column.key) for column in columns)


def _comparable(value: Value) -> tuple[float, str]:
    return (0.0, value) if isinstance(value, str) else (float(value or 0), "")


def _is_before(at: float | None, bound: float | None) -> bool:
    """Whether a time lies before `bound`; what was never used lies before all."""
    return bound is None or at is None or at < bound
