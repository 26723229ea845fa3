"""`moorage inspect-index`: look inside a cache, running or stopped.

Invariant: nothing here changes the cache but `rebuild`, which needs the lock. Exit codes: 0 fine,
1 something is wrong or unknown, 2 usage.
"""

import sys

import click

from engine.explanation import Inexplicable, require_explicable
from engine.subject import parse_subject
from tools import inspect_listing
from tools.inspect_check import check as run_check
from tools.inspect_check import rebuild_index
from tools.inspect_explain import describe
from tools.inspect_summary import summarize
from tools.inspect_victims import foretell
from tools.options import EXIT_FOUND, Site, site_command
from tools.output import show


@click.group("inspect-index")
def inspect_index() -> None:
    """Look inside a cache, whether its server runs or not."""


@inspect_index.command()
@site_command
def summary(site: Site) -> None:
    """Count what is stored, by age, upstream and repository; the budget; the share of hits."""
    show(summarize(site), is_json=site.is_json)


@inspect_index.command()
@click.argument("what", metavar="REF|DIGEST")
@site_command
def explain(site: Site, *, what: str) -> None:
    """Say what a tag or digest is, who links it, when it was used, and when it will go and why."""
    try:
        subject = require_explicable(parse_subject(what, site.settings.upstreams))
    except Inexplicable as exc:
        raise click.UsageError(str(exc)) from exc
    show(describe(site, subject), is_json=site.is_json)


@inspect_index.command()
@click.argument("count", metavar="[N]", type=click.IntRange(1), default=20)
@site_command
def victims(site: Site, *, count: int) -> None:
    """List the next N (20) blobs to be evicted, in this order."""
    show(foretell(site, count), is_json=site.is_json)


@inspect_index.command()
@site_command
def check(site: Site) -> None:
    """Compare the index with the files; exit 1 if they disagree. Hashes nothing."""
    report = run_check(site)
    show(report, is_json=site.is_json)
    if report.listings[0].rows:
        sys.exit(EXIT_FOUND)


@inspect_index.command()
@click.option(
    "--anew",
    "is_anew",
    is_flag=True,
    help="From the files alone: links and tags are forgotten, and come back as upstream is asked.",
)
@site_command
def rebuild(site: Site, *, is_anew: bool) -> None:
    """Make the index agree with the files, while no server runs."""
    show(rebuild_index(site, is_anew=is_anew), is_json=site.is_json)


for command in (inspect_listing.blobs, inspect_listing.repositories, inspect_listing.tags):
    inspect_index.add_command(command)
