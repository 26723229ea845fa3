"""`moorage top`: a running mirror, live in a terminal; lines in a pipe.

Invariant: a mirror that restarts or cannot be reached for a while is waited for, and said to be so.
"""

import itertools
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click
import msgspec
from rich.console import Console
from rich.live import Live

from engine.errors import CacheError
from tools.door import Door
from tools.door_options import door_command
from tools.output import Kind, plain
from tools.rates import rates_of
from tools.top_screen import View, draw

_INTERVAL_S = 1.0


@click.command()
@click.option(
    "--count", metavar="N", type=click.IntRange(1), help="End after N refreshes, one a second."
)
@door_command
def top(door: Door, *, is_json: bool, count: int | None) -> None:
    """Watch a running mirror, refreshed each second; q quits.

    In a pipe: a line a second, of key=value with tabs between; with --json, a document a line.
    """
    # Ctrl-C is how some leave.
    with suppress(KeyboardInterrupt):
        if is_json or not sys.stdout.isatty():
            _print_lines(door, count, is_json=is_json)
        else:
            _show_live(door, count)


def look(door: Door, last: View, now: float) -> View:
    """Ask once; keep what was known where nobody answers."""
    try:
        return View(door.overview(), last.facts)
    except CacheError as exc:
        return View(last.facts, None, last.unreachable_since or now, str(exc))


def to_line(view: View) -> str:
    """Write a view as one line. Pure."""
    facts = view.facts
    if facts is None or view.unreachable_since is not None:
        return f"state=unreachable\tcause={plain(view.cause, Kind.TEXT)}"
    rates = rates_of(facts, view.before)
    values = {
        "at": plain(facts.server.now, Kind.TIME),
        "state": facts.server.state,
        "requests_s": f"{rates.requests_s:.1f}",
        "sent_bytes_s": f"{rates.sent_bytes_s:.0f}",
        "hit_share": plain(rates.hit_share, Kind.SHARE),
        "connections": str(facts.server.connection_count),
        "fills": str(len(facts.fills)),
        "stored_bytes": str(facts.space.stored_bytes),
        "limit_bytes": str(facts.space.limit_bytes),
        "errors": str(sum(each.count for each in facts.errors if each.kind == "failure")),
    }
    return "\t".join(f"{key}={value}" for key, value in values.items())


def _print_lines(door: Door, count: int | None, *, is_json: bool) -> None:
    view = View(door.overview())  # a mirror that is not there at all is an error
    for number in itertools.count(1):
        if is_json and view.facts is not None:
            click.echo(msgspec.json.encode(view.facts))
        else:
            click.echo(to_line(view))
        sys.stdout.flush()
        if number == count:
            return
        time.sleep(_INTERVAL_S)
        view = look(door, view, time.time())


def _show_live(door: Door, count: int | None) -> None:
    console = Console(highlight=False)
    view = View(door.overview())
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        for number in itertools.count(1):
            live.update(draw(view, console.height), refresh=True)
            if number == count or pressed(_INTERVAL_S):
                return
            view = look(door, view, time.time())


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Give a function that waits so many seconds for a `q`, and says whether one came."""
    if not sys.stdin.isatty():

        def sleep(timeout_s: float) -> bool:
            time.sleep(timeout_s)
            return False

        yield sleep
        return

    before = termios.tcgetattr(sys.stdin)

    def wait_q(timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while (left_s := until - time.monotonic()) > 0:
            if not select.select([sys.stdin], [], [], left_s)[0]:
                return False
            if os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b""):
                return True
        return False

    try:
        tty.setcbreak(sys.stdin)
        yield wait_q
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
