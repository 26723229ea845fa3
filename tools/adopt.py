"""`moorage adopt`: the storage of an official registry in proxy mode taken over.

Invariant: nothing is written below PATH. Exit codes: 0 all that fits is here, 1 something was
damaged or could not be read, 2 usage, 130 interrupted; the same command goes on after any of them.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from engine.acts import hold_lock
from engine.adoption_intake import CannotShare, Intake, Mode
from engine.adoption_plan import Adopted, plan_jobs
from engine.adoption_run import adopt as run_adoption
from engine.adoption_run import rehearse
from engine.adoption_survey import Finding, NotARegistry, Survey, survey
from engine.blobdir import BlobDirectory
from engine.subject import parse_upstream
from engine.units import humane_bytes
from tools.options import EXIT_FOUND, EXIT_USAGE, Site, fail, founding_site_command, grouped
from tools.output import Column, Field, Kind, Listing, Report, show
from tools.progress import bar

EXIT_INTERRUPTED = 130

_MODES = {"auto": tuple(Mode), **{mode.value: (mode,) for mode in Mode}}
_COLUMNS = (
    Column("fault", "Not taken"),
    Column("path", "Path"),
    Column("detail", "Why"),
    Column("action", "To do"),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take over, and how."""

    path: Path
    upstream: str | None
    mode: str
    is_dry_run: bool


@click.command()
@grouped(
    "choice",
    Choice,
    click.argument("path", type=click.Path(path_type=Path)),
    click.option("--upstream", metavar="NAME", help="Whose content it is; default: the first."),
    click.option("--mode", type=click.Choice(list(_MODES)), default="auto", show_default=True),
    click.option("--dry-run", "is_dry_run", is_flag=True, help="Only count; nothing is read."),
)
@founding_site_command
def adopt(site: Site, *, choice: Choice) -> None:
    """Take over what a pull-through mirror of the official registry has stored.

    PATH is its rootdirectory, such as /var/lib/registry; nothing is written there. Every blob is
    verified. Stop this mirror first, and the registry if you can. Interrupted, or killed, the same
    command goes on. By default blobs are cloned (reflink), else linked, else copied.
    """
    upstream = _choose_upstream(site, choice.upstream)
    try:
        found = survey(choice.path.absolute())
        if not found.is_proxy:
            _warn(
                "no pull-through mirror's schedule is there: what was pushed into a registry "
                f"would be served as if it were {upstream}'s"
            )
        adopted, findings = _run(site, choice, found, upstream)
    except (NotARegistry, CannotShare) as exc:
        fail(exc, EXIT_USAGE, is_json=site.is_json)
    except KeyboardInterrupt:
        _warn("broken off; the same command goes on")
        sys.exit(EXIT_INTERRUPTED)
    if adopted.left_count:
        _warn(
            f"left {adopted.left_count} blobs ({humane_bytes(adopted.left_bytes)}), those used "
            "longest ago: the budget has no room for them (eviction.maxsize, eviction.minfree)"
        )
    show(_describe(choice, upstream, adopted, findings), is_json=site.is_json)
    if any(finding.fault.is_loss for finding in findings):
        sys.exit(EXIT_FOUND)


def _choose_upstream(site: Site, name: str | None) -> str:
    upstreams = site.settings.upstreams
    if name is None:
        return upstreams[0].namespace
    known = [upstream.namespace for upstream in upstreams]
    chosen = parse_upstream(name, upstreams)
    if chosen not in known:
        raise click.UsageError(f"no upstream {name} is configured; there is {', '.join(known)}")
    return chosen


def _run(site: Site, choice: Choice, found: Survey, upstream: str) -> tuple[Adopted, list[Finding]]:
    """Adopt or rehearse. The lock is held until every thread is through."""
    findings: list[Finding] = []
    if choice.is_dry_run:
        return asyncio.run(rehearse(found, upstream, site.settings, findings.append)), findings
    blob_directory = BlobDirectory(site.layout)
    blob_directory.prepare()
    with hold_lock(site.layout), _progress(found, upstream) as progress:
        blob_directory.clean()
        intake = Intake(blob_directory, _MODES[choice.mode], progress)
        adopted = asyncio.run(run_adoption(found, upstream, site.settings, intake, findings.append))
    return adopted, findings


@contextmanager
def _progress(found: Survey, upstream: str) -> Iterator[Callable[[int], None]]:
    """Show progress in a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    total_bytes = sum(job.found.size_bytes for job in plan_jobs(found, upstream))
    with bar("adopting", total_bytes) as advance:
        yield advance


def _describe(choice: Choice, upstream: str, adopted: Adopted, findings: list[Finding]) -> Report:
    fields = [
        Field("path", "From", str(choice.path)),
        Field("upstream", "Upstream", upstream),
        Field("is_dry_run", "Dry run", choice.is_dry_run),
        Field("repository_count", "Repositories", adopted.repository_count, Kind.COUNT),
        Field("tag_count", "Tags", adopted.tag_count, Kind.COUNT),
        Field("link_count", "Links", adopted.link_count, Kind.COUNT),
        Field("taken_count", "Blobs taken", adopted.taken_count, Kind.COUNT),
        Field("taken_bytes", "Bytes taken", adopted.taken_bytes, Kind.BYTES),
        *(
            Field(f"{mode.value}_count", f"By {mode.value}", count, Kind.COUNT)
            for mode, count in adopted.taken.items()
            if not choice.is_dry_run
        ),
        Field("present_count", "Here before", adopted.present_count, Kind.COUNT),
        Field("left_count", "Left for want of room", adopted.left_count, Kind.COUNT),
        Field("left_bytes", "Bytes left", adopted.left_bytes, Kind.BYTES),
        Field("gone_count", "Deleted there", adopted.gone_count, Kind.COUNT),
        Field("unlinked_count", "Nobody's there", adopted.unlinked_count, Kind.COUNT),
    ]
    rows = [(each.fault.value, each.path, each.detail, each.fault.action) for each in findings]
    return Report(fields, [Listing("findings", _COLUMNS, rows)])


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
