"""`moorage warm`: have a running mirror fetch images before anybody asks for them."""

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn, TextIO

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from engine.errors import CacheError
from engine.platforms import own_platform, parse_platform
from server.control_messages import Warm, Warming
from tools.door import Door
from tools.door_options import door_command
from tools.options import EXIT_FOUND, grouped
from tools.output import Kind, plain

_INTERRUPTED = 130
_COLUMNS = (Kind.TEXT, Kind.TEXT, Kind.COUNT, Kind.BYTES, Kind.BYTES, Kind.TEXT)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to warm, and how many at a time."""

    refs: tuple[str, ...]
    file: TextIO | None
    platform: tuple[str, ...]
    all_platforms: bool
    parallel: int


@click.command()
@grouped(
    "wanted",
    Wanted,
    click.argument("refs", metavar="REF…", nargs=-1),
    click.option(
        "-f", "--file", metavar="LIST", type=click.File(), help="One REF a line; - = stdin."
    ),
    click.option(
        "--platform",
        metavar="OS/ARCH[,…]",
        multiple=True,
        help="What to take of image indexes (this machine's, where not given).",
    ),
    click.option("--all-platforms", is_flag=True, help="Take all of an image index."),
    click.option(
        "--parallel",
        metavar="N",
        type=click.IntRange(1, 32),
        default=4,
        help="Images at a time (4).",
    ),
)
@door_command
def warm(door: Door, *, is_json: bool, wanted: Wanted) -> None:
    """Fetch images into a running mirror; what it has already is skipped at once.

    A REF is docker.io/library/busybox:1.35, busybox:1.35 for short, or a repository@sha256:…
    Interrupted or failed, run it again: it goes on where it was. Exit code 1 names what failed.
    """
    commands = make_commands(wanted)
    if is_json:
        ended = list(_warm_all(door, commands, wanted.parallel, lambda _: None))
        click.echo(json.dumps({"images": [msgspec.to_builtins(each) for each in ended]}, indent=2))
    else:
        ended = _warm_shown(door, commands, wanted.parallel)
    failures = [each for each in ended if each.state != "done"]
    for each in failures:
        click.echo(f"error: {plain(each.ref, Kind.TEXT)}: {plain(each.cause, Kind.TEXT)}", err=True)
    if failures:
        sys.exit(EXIT_FOUND)


def make_commands(wanted: Wanted) -> list[Warm]:
    """Read what is wanted; raises `click.UsageError`."""
    listed = read_list(wanted.file) if wanted.file else []
    refs = list(dict.fromkeys([*wanted.refs, *listed]))
    if not refs:
        raise click.UsageError("name what to warm: REF…, or -f LIST")
    platforms = [part for text in wanted.platform for part in text.split(",")]
    if platforms and wanted.all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    try:
        platforms = [str(parse_platform(text)) for text in platforms] or [str(own_platform())]
    except ValueError as exc:
        raise click.UsageError(f"--platform: {exc}") from exc
    return [Warm(ref, platforms, wanted.all_platforms) for ref in refs]


def read_list(lines: Iterable[str]) -> list[str]:
    """Read a list of references: one a line, without comments (`#`) and empty lines."""
    found = (line.partition("#")[0].strip() for line in lines)
    return [ref for ref in found if ref]


def _warm_shown(door: Door, commands: list[Warm], parallel: int) -> list[Warming]:
    """Warm, with bars in a terminal and a line for each image otherwise."""
    console = Console(stderr=True, highlight=False)
    if not (console.is_terminal and sys.stdout.isatty()):
        ended = []
        for each in _warm_all(door, commands, parallel, lambda _: None):
            click.echo(to_line(each))
            ended.append(each)
        return ended
    with _Bars(console) as bars:
        return list(_warm_all(door, commands, parallel, bars.note))


def to_line(each: Warming) -> str:
    """Write how a warm ended: state, reference, blobs, bytes, of them fetched, and the cause."""
    values = (
        each.state,
        each.ref,
        each.blob_count,
        each.total_bytes,
        each.done_bytes - each.hit_bytes,
        each.cause or None,
    )
    return "\t".join(plain(value, kind) for value, kind in zip(values, _COLUMNS, strict=True))


def _warm_all(
    door: Door, commands: list[Warm], parallel: int, note: Callable[[Warming], None]
) -> Iterator[Warming]:
    """Warm some at a time; give how each ended, as it ends."""
    stop = threading.Event()
    with ThreadPoolExecutor(parallel, thread_name_prefix="warm") as pool:
        works = [pool.submit(_warm_one, door, command, note, stop) for command in commands]
        try:
            for work in as_completed(works):
                yield work.result()
        except KeyboardInterrupt:
            _interrupt(pool, stop)


def _interrupt(pool: ThreadPoolExecutor, stop: threading.Event) -> NoReturn:
    # The mirror tells how far it is twice a second, so each thread soon sees it.
    stop.set()
    pool.shutdown(cancel_futures=True)
    click.echo("interrupted: what was fetched is kept; run it again to go on", err=True)
    sys.exit(_INTERRUPTED)


def _warm_one(
    door: Door, command: Warm, note: Callable[[Warming], None], stop: threading.Event
) -> Warming:
    last = Warming(command.ref, "failed", cause="the server said nothing")
    try:
        with closing(door.warm(command)) as stages:
            for last in stages:
                note(last)
                if stop.is_set():
                    break
    except CacheError as exc:
        last = msgspec.structs.replace(last, state="failed", cause=str(exc))
    if last.state == "running":
        cause = "broken off: run it again to go on"
        last = msgspec.structs.replace(last, state="failed", cause=cause)
    note(last)
    return last


class _Bars:
    """A bar for each image under way. `note` may be called from any thread."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[state]}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._tasks: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, each: Warming) -> None:
        """Draw how far a warm is."""
        style = {"done": "green", "failed": "red"}.get(each.state, "default")
        with self._lock:
            if each.ref not in self._tasks:
                self._tasks[each.ref] = self._progress.add_task("", total=None, state="")
            task = self._progress.tasks[self._tasks[each.ref]]
        self._progress.update(
            task.id,
            description=f"[{style}]{escape(plain(each.ref, Kind.TEXT))}[/]",
            completed=each.done_bytes,
            total=each.total_bytes or None,
            state=each.state,
        )
        if each.state != "running":
            self._progress.stop_task(task.id)
