"""A bar on standard error for what may take long.

Invariant: nothing shows within the first second, nor where standard error is no terminal; and
nothing of it stays.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

# What is over by then needs no bar.
_PATIENCE_S = 1.0


@contextmanager
def shown_wait(doing: str, step_count: int) -> Iterator[Callable[[], None]]:
    """Give what is to be called after each of `step_count` steps."""
    if not sys.stderr.isatty():
        yield _show_nothing
        return
    columns = (TextColumn(doing), BarColumn(), TaskProgressColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=step_count)
    show_at = time.monotonic() + _PATIENCE_S

    def advance() -> None:
        progress.advance(task)
        if not progress.live.is_started and time.monotonic() >= show_at:
            progress.start()

    try:
        yield advance
    finally:
        progress.stop()


def _show_nothing() -> None:
    """Nobody looks."""
