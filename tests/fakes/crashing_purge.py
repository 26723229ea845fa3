"""A child process that purges and kills itself at the n-th disk call."""

from pathlib import Path

from engine.acts import open_acts
from engine.subject import RepositorySubject
from tests.fakes.caches import BUSYBOX
from tests.fakes.fuse import run_until


async def purge(data: Path) -> None:
    """Purge a repository as the tool does without a server."""
    async with open_acts(data) as acts:
        await acts.purge(RepositorySubject(BUSYBOX))


def purge_until(data: Path, number: int) -> int:
    """Purge in a child that is killed at disk call `number`; return its wait status."""
    return run_until(number, lambda _: purge(data))
