"""`moorage purge`, `pin` and `unpin`: what an operator does to a cache, running or not."""

import asyncio

import click

from engine.subject import UpstreamSubject, parse_subject, parse_upstream
from server.control_messages import Changed, Pin, Purged, Unpin, purge_of
from tools.control_client import act
from tools.options import Site, site_command
from tools.output import Column, Field, Kind, Listing, Report, show
from tools.parameters import pin_glob


@click.command()
@click.argument("what", metavar="[REF|REPOSITORY|DIGEST]", required=False)
@click.option("--upstream", metavar="NAME", help="Purge all repositories of an upstream.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only say what would go.")
@site_command
def purge(site: Site, *, what: str | None, upstream: str | None, is_dry_run: bool) -> None:
    """Drop a tag, a repository, a digest or an upstream from the cache, at once.

    Content that others link stays. Upstream keeps everything: what is purged is fetched anew when
    it is asked for. Pins do not keep anything from being purged.
    """
    upstreams = site.settings.upstreams
    if (what is None) == (upstream is None):
        raise click.UsageError(
            "name what to purge: a reference, a repository, a digest, or --upstream"
        )
    subject = (
        parse_subject(what, upstreams)
        if what is not None
        else UpstreamSubject(parse_upstream(upstream or "", upstreams))
    )
    reply = asyncio.run(act(site.layout, purge_of(subject, is_dry_run=is_dry_run)))
    assert isinstance(reply, Purged)
    show(_describe(str(subject), reply), is_json=site.is_json)


@click.command()
@click.argument("glob", metavar="GLOB", type=pin_glob)
@site_command
def pin(site: Site, *, glob: str) -> None:
    """Never evict what the tags matching GLOB (over upstream/repository:tag) need.

    Holds for what is stored later, too, and until `moorage unpin` takes it back, beside
    `eviction.pins` of the configuration.
    """
    _change(site, Pin(glob), "pinned", "pinned already")


@click.command()
@click.argument("glob", metavar="GLOB", type=pin_glob)
@site_command
def unpin(site: Site, *, glob: str) -> None:
    """Take back a pin that `moorage pin` set; GLOB as it was given there."""
    _change(site, Unpin(glob), "unpinned", "not pinned")


def _change(site: Site, command: Pin | Unpin, done: str, undone: str) -> None:
    reply = asyncio.run(act(site.layout, command))
    assert isinstance(reply, Changed)
    outcome = done if reply.is_new else undone
    fields = [Field("glob", "Glob", command.glob), Field("outcome", "Outcome", outcome)]
    show(Report(fields), is_json=site.is_json)


def _describe(subject: str, reply: Purged) -> Report:
    freed_bytes = sum(blob.size_bytes for blob in reply.blobs)
    fields = [
        Field("subject", "Subject", subject),
        Field("is_dry_run", "Dry run", reply.is_dry_run),
        Field("tag_count", "Tags", len(reply.tags), Kind.COUNT),
        Field("blob_count", "Blobs", len(reply.blobs), Kind.COUNT),
        Field("freed_bytes", "Freed", freed_bytes, Kind.BYTES),
        Field("kept_count", "Kept for others", reply.kept_count, Kind.COUNT),
    ]
    tags = Listing("tags", [Column("tag", "Tag")], [(tag,) for tag in reply.tags])
    blobs = Listing(
        "blobs",
        [Column("digest", "Digest"), Column("size_bytes", "Size", Kind.BYTES)],
        [(blob.digest, blob.size_bytes) for blob in reply.blobs],
    )
    return Report(fields, [tags, blobs])
