"""How far a command is that reads many bytes: for people in a terminal, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def bar(doing: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show bytes, their rate and the time left; what it gives is called with bytes that are done,
    from any thread.
    """
    progress = Progress(
        TextColumn(doing),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with progress:
        task = progress.add_task("", total=total_bytes)
        yield lambda count: progress.advance(task, count)
