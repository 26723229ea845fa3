"""The mirror under test, as users run it: the installed command, a configuration file, a process.

Invariant: a site outlives its processes, so a test may kill one and start the next on its data.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.fakes.child import Child, clean_environment

PROGRAM = Path(sys.executable).with_name("moorage")
_LISTENING = r"listening addr=(?P<address>\S+:\d+)"

Config = dict[str, object]


class Mirror:
    """A running mirror."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.address = child.wait_for(_LISTENING)["address"]

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.address}"

    @property
    def port(self) -> int:
        """Port on 127.0.0.1."""
        return int(self.address.rpartition(":")[2])

    def drain(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.child.signal(signal.SIGTERM)
        return self.child.wait()


@dataclass(frozen=True, slots=True)
class Site:
    """A data directory and a configuration, for one mirror at a time."""

    directory: Path
    config: Config

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @contextmanager
    def start(self, **environment: str) -> Iterator[Mirror]:
        """Run a mirror while the `with` block lasts, or until the test ends it earlier."""
        with self.spawn(**environment) as child:
            yield Mirror(child)

    def spawn(self, *before: str, **environment: str) -> Child:
        """Start the process, with more in its environment, and wait for nothing.

        `before`: a command that goes on to run what it is given.
        """
        file = self.directory / "config.yml"
        file.write_text(yaml.safe_dump(self.config))
        return Child(
            [*before, str(PROGRAM), "serve", str(file)],
            env=clean_environment(self.directory, **environment),
            log=self.directory / "log",
        )


def site_of(
    directory: Path, upstream_url: str, username: str = "", password: str = "", **proxy: object
) -> Site:
    """Lay out a mirror of `upstream_url`; `proxy` holds further keys of that section."""
    directory.mkdir(parents=True, exist_ok=True)
    section: Config = {"remoteurl": upstream_url, **proxy}
    if username:
        section |= {"username": username, "password": password}
    config: Config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": "127.0.0.1:0"},
        "proxy": section,
    }
    return Site(directory, config)
