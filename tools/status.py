"""`moorage status`: what the status page shows, as tables, lines or JSON."""

from collections.abc import Sequence

import click
import msgspec

from server.facts import Facts
from tools.door import Door
from tools.door_options import door_command
from tools.output import Column, Field, Kind, Listing, Report, Value, show

_FILLS = (
    Column("digest", "Digest"),
    Column("repository", "Repository"),
    Column("written_bytes", "Here", Kind.BYTES),
    Column("size_bytes", "Of", Kind.BYTES),
    Column("reader_count", "Readers", Kind.COUNT),
    Column("begun_at", "Since", Kind.TIME),
    Column("is_stored", "Stored"),
)
_UPSTREAMS = (
    Column("name", "Upstream"),
    Column("state", "State"),
    Column("remaining", "Pulls left", Kind.COUNT),
    Column("limit", "Of", Kind.COUNT),
    Column("request_count", "Requests", Kind.COUNT),
    Column("billable_count", "Billable", Kind.COUNT),
)
_PULLED = (
    Column("repository", "Repository"),
    Column("manifest_count", "Manifests", Kind.COUNT),
    Column("blob_count", "Blobs", Kind.COUNT),
    Column("sent_bytes", "Sent", Kind.BYTES),
)
_LARGEST = (
    Column("repository", "Repository"),
    Column("blob_count", "Blobs", Kind.COUNT),
    Column("stored_bytes", "Size", Kind.BYTES),
    Column("own_bytes", "Not shared", Kind.BYTES),
    Column("used_at", "Last used", Kind.TIME),
)
_VICTIMS = (
    Column("digest", "Digest"),
    Column("disk_bytes", "On disk", Kind.BYTES),
    Column("used_at", "Last used", Kind.TIME),
    Column("reason", "Reason"),
    Column("needed_bytes", "After so much more", Kind.BYTES),
)
_ERRORS = (
    Column("last_at", "Last", Kind.TIME),
    Column("count", "Times", Kind.COUNT),
    Column("status", "Status", Kind.TEXT),
    Column("repository", "Of"),
    Column("cause", "Cause"),
)


@click.command()
@door_command
def status(door: Door, *, is_json: bool) -> None:
    """Show how a running mirror fares: hits, disk, downloads, upstreams, errors.

    --json prints what `/api/v1/status` gives.
    """
    facts = door.overview()
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(facts)))
    else:
        show(make_report(facts), is_json=False)


def make_report(facts: Facts) -> Report:
    """Lay the facts out. Pure."""
    survey = facts.survey
    return Report(
        [*_server_fields(facts), *_traffic_fields(facts), *_space_fields(facts)],
        [
            Listing("fills", _FILLS, _rows(facts.fills, _FILLS)),
            Listing("upstreams", _UPSTREAMS, _upstream_rows(facts)),
            Listing("errors", _ERRORS, _rows(facts.errors, _ERRORS)),
            Listing("most_pulled", _PULLED, _rows(facts.pulled, _PULLED)),
            Listing("largest", _LARGEST, _rows(survey.largest if survey else (), _LARGEST)),
            Listing("next_to_go", _VICTIMS, _rows(survey.victims if survey else (), _VICTIMS)),
        ],
    )


def describe_upstream(facts: Facts, name: str) -> str:
    """Say how an upstream is, in a few words. Pure."""
    (found,) = (each for each in facts.upstreams if each.name == name)
    parts = [f"{each.lane}: fails, asked again in {each.wait_s:.0f} s" for each in found.breakers]
    parts += [f"{each.kind}: paused for {each.left_s:.0f} s" for each in found.pauses]
    return "; ".join(parts) or "ok"


def _server_fields(facts: Facts) -> list[Field]:
    server = facts.server
    return [
        Field("version", "Moorage", server.version),
        Field("state", "State", server.state),
        Field("pid", "Process", str(server.pid)),
        Field("started_at", "Since", server.started_at, Kind.TIME),
        Field("clients_at", "Clients at", " ".join(server.clients_at)),
        Field("data_directory", "Data directory", server.data_directory),
        Field("connection_count", "Connections", server.connection_count, Kind.COUNT),
    ]


def _traffic_fields(facts: Facts) -> list[Field]:
    traffic = facts.traffic
    return [
        Field("request_count", "Requests", traffic.request_count, Kind.COUNT),
        Field("hit_share", "Hits", traffic.hit_share, Kind.SHARE),
        Field("hit_bytes_share", "  of bytes", traffic.hit_bytes_share, Kind.SHARE),
        Field("sent_bytes", "Sent", traffic.sent_bytes, Kind.BYTES),
        Field("hit_p50_s", "Half of hits within", _milliseconds(traffic.hit_p50_s)),
        Field("hit_p99_s", "99 % of hits within", _milliseconds(traffic.hit_p99_s)),
    ]


def _space_fields(facts: Facts) -> list[Field]:
    space, scrub, survey = facts.space, facts.scrub, facts.survey
    return [
        Field("limit_bytes", "Budget", space.limit_bytes, Kind.BYTES),
        Field("stored_bytes", "On disk", space.stored_bytes, Kind.BYTES),
        Field("used_share", "  share", space.stored_bytes / max(1, space.limit_bytes), Kind.SHARE),
        Field("quarantine_bytes", "  quarantine", space.quarantine_bytes, Kind.BYTES),
        Field("reserved_bytes", "Reserved by fills", space.reserved_bytes, Kind.BYTES),
        Field("blob_count", "Blobs", survey.blob_count if survey else None, Kind.COUNT),
        Field("verified_bytes", "Verified", scrub.checked_bytes, Kind.BYTES),
        Field("damaged_count", "Found damaged", scrub.damaged_count, Kind.COUNT),
    ]


def _milliseconds(span_s: float | None) -> str | None:
    return None if span_s is None else f"{span_s * 1000:g} ms"


def _upstream_rows(facts: Facts) -> list[tuple[Value, ...]]:
    return [
        (
            each.name,
            describe_upstream(facts, each.name),
            each.remaining,
            each.limit,
            each.request_count,
            each.billable_count,
        )
        for each in facts.upstreams
    ]


def _rows(found: Sequence[msgspec.Struct], columns: tuple[Column, ...]) -> list[tuple[Value, ...]]:
    return [tuple(getattr(each, column.key) for column in columns) for each in found]
