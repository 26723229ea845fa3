"""A child process that purges and kills itself at the n-th disk call.

It is forked, since starting Python anew for each call would take minutes.
"""

import asyncio
import os
import traceback
from pathlib import Path

from engine.acts import open_acts
from engine.subject import RepositorySubject
from tests.fakes.caches import BUSYBOX
from tests.fakes.crashing_pull import Fuse, arm


async def purge(data: Path) -> None:
    """Purge a repository as the tool does without a server."""
    async with open_acts(data) as acts:
        await acts.purge(RepositorySubject(BUSYBOX))


def purge_until(data: Path, number: int) -> int:
    """Purge in a child that is killed at disk call `number`; return its wait status.

    0 where all was over before that call.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            arm(Fuse(number))
            asyncio.run(purge(data))
            status = 0
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not return
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
