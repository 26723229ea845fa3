"""What all commands about a data directory share: `--data`, `--config`, `--json`, and who may.

Invariant: a command works as the directory's owner. As root it becomes the owner first, since a
file of root's among SQLite's would lock the server out; anybody else is refused.
"""

import functools
import json
import os
import pwd
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

import click

from engine.errors import CacheError, DirectoryInUse, IndexTooNew, InvalidName
from engine.layout import Layout
from engine.migrate import load_migrations
from engine.settings import EngineSettings
from server.config import ConfigError, load

EXIT_FOUND = 1
EXIT_USAGE = 2

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
_FILE = click.Path(path_type=Path)
# What a fresh volume or the official registry's own storage has in it.
_HARMLESS_NAMES = {"docker", "scheduler-state.json", "lost+found"}


@dataclass(frozen=True, slots=True)
class Site:
    """A data directory and the settings of its mirror; how to answer."""

    settings: EngineSettings
    is_json: bool

    @property
    def layout(self) -> Layout:
        """Where everything lies."""
        return Layout(self.settings.data_directory)


def site_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the three options, and call it with the `Site` that they mean.

    What the engine raises becomes one line on standard error and an exit code.
    """
    return _site_command(function, become_owner)


def founding_site_command(function: Callable[..., None]) -> Callable[..., None]:
    """Do as `site_command`, where the data directory need not be one yet."""
    return _site_command(function, become_founder)


def _site_command(
    function: Callable[..., None], prepare: Callable[[Path], None]
) -> Callable[..., None]:

    @click.option("--data", metavar="DIR", type=_FILE, help="The mirror's data directory.")
    @click.option("--config", metavar="FILE", type=_FILE, help="The mirror's config.yml.")
    @click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(function)
    def command(
        *, data: Path | None, config: Path | None, is_json: bool, **options: object
    ) -> None:
        try:
            settings = load(config, os.environ, data=data).engine
            prepare(settings.data_directory)
            function(Site(settings, is_json), **options)
        except ConfigError as exc:
            exit_with(exc, is_json=is_json)
        except (NotADataDirectory, InvalidName, IndexTooNew, DirectoryInUse) as exc:
            fail(exc, EXIT_USAGE, is_json=is_json)
        except CacheError as exc:
            fail(exc, EXIT_FOUND, is_json=is_json)

    return command


def grouped(name: str, kind: type, *options: Decorator) -> Decorator:
    """Give a command options that reach it as one argument: `name`, of the dataclass `kind`."""
    keys = [each.name for each in fields(kind)]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**arguments: object) -> None:
            group = kind(**{key: arguments.pop(key) for key in keys})
            function(**arguments, **{name: group})

        decorated: Callable[..., None] = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


class NotADataDirectory(Exception):
    """The directory is not there, or is somebody else's."""


def become_owner(path: Path) -> None:
    """See that the process acts as the owner of `path`. Raises `NotADataDirectory`."""
    found = _look_at(path)
    if not path.joinpath("blobs").is_dir():
        raise NotADataDirectory(f"{path} is no data directory of a mirror; name it: --data DIR")
    _act_as_owner(path, found)


def become_founder(path: Path) -> None:
    """Do as `become_owner`, where `path` may also be missing, empty, or a registry's storage.

    Where it is missing, whoever runs the command will own it.
    """
    if not path.exists():
        return
    found = _look_at(path)
    if not path.is_dir() or not _may_become_data_directory(path):
        raise NotADataDirectory(f"{path} is not empty, and no data directory of a mirror")
    _act_as_owner(path, found)


def _may_become_data_directory(path: Path) -> bool:
    try:
        names = set(os.listdir(path))
    except OSError as exc:
        raise NotADataDirectory(f"{path}: {exc.strerror}") from exc
    return "blobs" in names or names <= _HARMLESS_NAMES


def _look_at(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as exc:
        raise NotADataDirectory(f"{path}: {exc.strerror}; name it: --data DIR") from exc


def _act_as_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid == os.geteuid():
        return
    if os.geteuid() != 0:
        name = _name_of(found.st_uid)
        raise NotADataDirectory(f"{path} is {name}'s; run this as {name}: sudo -u {name} …")
    # What the program reads of itself is read before: it may lie where the owner may not look.
    load_migrations()
    os.setgroups([])
    os.setgid(found.st_gid)
    os.setuid(found.st_uid)


def exit_with(error: ConfigError, *, is_json: bool) -> NoReturn:
    """Say what is wrong with a configuration, and exit 2."""
    if is_json:
        problems = [
            {
                "source": problem.source,
                "key": problem.key_path,
                "found": problem.found,
                "expected": problem.expected,
            }
            for problem in error.problems
        ]
        click.echo(json.dumps({"errors": problems}, indent=2))
    click.echo(str(error), err=True)
    sys.exit(EXIT_USAGE)


def fail(error: Exception, code: int, *, is_json: bool) -> NoReturn:
    """Say why a command could not do its work, and exit."""
    if is_json:
        click.echo(json.dumps({"error": str(error)}))
    click.echo(f"error: {error}", err=True)
    sys.exit(code)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
