"""`moorage healthcheck`: whether the mirror of a data directory answers. For container engines."""

import sys

import click

from tools.control_client import find_server
from tools.options import EXIT_FOUND, Site, site_command
from tools.output import Field, Report, show

# An event loop that needs longer serves nobody.
_PATIENCE_S = 5.0


@click.command()
@site_command
def healthcheck(site: Site) -> None:
    """Exit 0 if the running mirror answers, else 1.

    It is asked at its control socket, whatever it listens on otherwise, and whatever upstream does.
    """
    is_alive = find_server(site.layout, _PATIENCE_S) is not None
    show(Report([Field("is_alive", "Answers", is_alive)]), is_json=site.is_json)
    if not is_alive:
        sys.exit(EXIT_FOUND)
