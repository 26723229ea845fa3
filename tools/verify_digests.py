"""`moorage verify-digests`: every stored byte compared with what it should be.

Invariant: standard output has the findings, and with --json one document; progress and all else is
on standard error. Exit codes: 0 all is right, 1 something is wrong, 2 usage, 130 interrupted.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import msgspec

from engine.errors import StorageError
from engine.subject import DigestSubject, RepositorySubject, Subject, parse_subject
from engine.units import humane_bytes
from tools import verify_state
from tools.options import EXIT_FOUND, Site, grouped, site_command
from tools.output import Column, Field, Kind, Listing, Report, show
from tools.parameters import moment, percentage
from tools.progress import bar
from tools.verify_run import Run
from tools.verify_state import Finding, State

EXIT_INTERRUPTED = 130

_COLUMNS = (
    Column("fault", "Wrong"),
    Column("digest", "Digest"),
    Column("path", "Path"),
    Column("detail", "Detail"),
    Column("action", "To do"),
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What to verify, and how. All of it is kept for a run that goes on."""

    what: str | None
    is_quick: bool
    sample: float
    since: float


@click.command("verify-digests")
@grouped(
    "scope",
    Scope,
    click.argument("what", metavar="[DIGEST|REPOSITORY]", required=False),
    click.option("--quick", "is_quick", is_flag=True, help="By xxh3-128, where it is recorded."),
    click.option("--sample", type=percentage, default="100%", metavar="PERCENT", help="By lot."),
    click.option(
        "--since", type=moment, default="1970-01-01", metavar="TIME", help="Stored since."
    ),
)
@click.option("--quarantine", "is_quarantining", is_flag=True, help="Take out what is damaged.")
@click.option("--resume", "is_resuming", is_flag=True, help="Go on where the last run broke off.")
@site_command
def verify_digests(site: Site, *, scope: Scope, is_quarantining: bool, is_resuming: bool) -> None:
    """Read every blob again, on all cores, and compare it with its digest.

    Works while the server runs or not, and without an index. TIME is a date, or how long ago: 7d.
    With --resume everything else is as it was when the run began.
    """
    state = _resume(site, scope) if is_resuming else _begin(scope)
    subject = _parse(site, state.what)
    run = Run(site.layout, state, subject, _teller(site), is_quarantining=is_quarantining)
    begun_at, begun_bytes = time.monotonic(), state.checked_bytes
    try:
        asyncio.run(_verify(run))
    except KeyboardInterrupt:
        verify_state.save(site.layout.root, state)
        click.echo("broken off; go on: verify-digests --resume", err=True)
        sys.exit(EXIT_INTERRUPTED)
    verify_state.clear(site.layout.root)
    if isinstance(subject, DigestSubject) and not state.checked_count:
        raise StorageError(f"{subject} is not stored here")
    duration_s = time.monotonic() - begun_at
    _conclude(site, state, duration_s, state.checked_bytes - begun_bytes)
    if state.findings:
        sys.exit(EXIT_FOUND)


def _begin(scope: Scope) -> State:
    return State(
        scope.what, scope.is_quick, scope.sample, secrets.randbits(63), stored_since=scope.since
    )


def _resume(site: Site, scope: Scope) -> State:
    if (scope.what, scope.is_quick, scope.sample, scope.since) != (None, False, 1.0, 0.0):
        raise click.UsageError("--resume goes on with what was chosen then; choose nothing anew")
    state = verify_state.load(site.layout.root)
    if state is None:
        raise click.UsageError(f"no run was broken off in {site.layout.root}")
    return state


def _parse(site: Site, what: str | None) -> Subject | None:
    if what is None:
        return None
    subject = parse_subject(what, site.settings.upstreams)
    if not isinstance(subject, DigestSubject | RepositorySubject):
        raise click.UsageError(f"{what} is neither a digest nor a repository")
    return subject


async def _verify(run: Run) -> None:
    if not sys.stderr.isatty():
        await run.verify(lambda count: None)
        return
    with bar("verifying", await run.measure()) as advance:
        await run.verify(advance)


def _teller(site: Site) -> Callable[[Finding], None]:
    """Say findings as they come, but for JSON, which is one document."""

    def tell(finding: Finding) -> None:
        if not site.is_json:
            click.echo("\t".join(msgspec.structs.astuple(finding)))

    return tell


def _conclude(site: Site, state: State, duration_s: float, read_bytes: int) -> None:
    rate = read_bytes / max(duration_s, 1e-9)
    if not site.is_json:
        click.echo(
            f"{state.checked_count} blobs, {humane_bytes(state.checked_bytes)} verified in "
            f"{duration_s:.1f} s ({humane_bytes(rate)}/s), {len(state.findings)} wrong",
            err=True,
        )
        return
    fields = [
        Field("is_quick", "Quick", state.is_quick),
        Field("checked_count", "Blobs", state.checked_count, Kind.COUNT),
        Field("checked_bytes", "Bytes", state.checked_bytes, Kind.BYTES),
        Field("gone_count", "Evicted meanwhile", state.gone_count, Kind.COUNT),
        Field("duration_s", "Took", round(duration_s, 3), Kind.SPAN),
        Field("bytes_per_s", "Rate", int(rate), Kind.BYTES),
    ]
    rows = [msgspec.structs.astuple(finding) for finding in state.findings]
    show(Report(fields, [Listing("findings", _COLUMNS, rows)]), is_json=True)
