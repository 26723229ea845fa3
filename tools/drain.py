"""`moorage drain`: have a server stop as SIGTERM would, and see it to its end."""

import sys

import click
from rich.console import Console

from engine.errors import CacheError
from server.control_messages import Draining
from tools.door import Door
from tools.door_options import door_command
from tools.options import EXIT_FOUND
from tools.output import Field, Kind, Report, show

_STEP_S = 0.5
# To close the cache once all clients have gone: flushing, and a copy of the index.
_CLOSING_S = 60.0


@click.command()
@door_command
def drain(door: Door, *, is_json: bool) -> None:
    """Stop a server: it takes no new connection, finishes what is under way, and exits.

    `/readyz` says 503 from the first moment. What is not finished after `http.draintimeout` is cut.
    Exit code 1 where the server does not end.
    """
    begun = door.drain()
    has_ended = _watch(door, begun)
    fields = [
        Field("pid", "Server", begun.pid),
        Field("connection_count", "Connections that it had", begun.connection_count, Kind.COUNT),
        Field("outcome", "Outcome", "ended" if has_ended else "still running"),
    ]
    show(Report(fields), is_json=is_json)
    if not has_ended:
        sys.exit(EXIT_FOUND)


def _watch(door: Door, begun: Draining) -> bool:
    """Wait for the end, telling in a terminal how far it is."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return door.wait_gone(begun.pid, begun.timeout_s + _CLOSING_S)
    left_s = begun.timeout_s + _CLOSING_S
    with console.status(_describe(begun.connection_count)) as status:
        while left_s > 0:
            if door.wait_gone(begun.pid, _STEP_S):
                return True
            left_s -= _STEP_S
            status.update(_describe(_count_connections(door)))
    return False


def _count_connections(door: Door) -> int | None:
    """Ask how many are left; None once it no longer answers, as it is closing its cache."""
    try:
        return door.overview().server.connection_count
    except CacheError:
        return None


def _describe(connection_count: int | None) -> str:
    if connection_count is None:
        return "closing the cache"
    return f"draining: {connection_count} connections left"
