"""Kills a process at its n-th disk call.

Every call that changes a file, a directory or the index counts twice: once before and once after
it.
"""

import asyncio
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from engine.index_writer import WriterConnection


class Fuse:
    """Kills the process when it has been passed so many times."""

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining

    def burn(self) -> None:
        """Pass once."""
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Burn before and after each call."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.burn()
            result = call(*args, **kwargs)
            self.burn()
            return result

        return wrapped


def arm(fuse: Fuse) -> None:
    """Put the fuse into every door to the disk."""
    for name in ("pwritev", "fsync", "fchmod", "ftruncate"):
        setattr(os, name, fuse.wrap(getattr(os, name)))
    for name in ("mkdir", "unlink", "rename"):
        setattr(Path, name, fuse.wrap(getattr(Path, name)))
    tempfile.mkstemp = fuse.wrap(tempfile.mkstemp)
    # A group of index writes, in the writer's thread.
    apply = fuse.wrap(WriterConnection._apply)
    WriterConnection._apply = apply  # type: ignore[method-assign]  # the fuse stands in its way


def run_until(number: int, work: Callable[[Fuse], Coroutine[Any, Any, None]]) -> int:
    """Run `work` in a child that is killed at disk call `number`; return its wait status.

    0 where all was over before that call. The child is forked, since starting Python anew for each
    of a hundred calls would take minutes. `work` may put its fuse into further calls.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fuse = Fuse(number)
            arm(fuse)
            asyncio.run(work(fuse))
            status = 0
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not return
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
