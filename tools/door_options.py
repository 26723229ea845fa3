"""What commands about a running mirror share: which mirror, by which door, and how to answer."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import click

from engine.errors import CacheError, InvalidName
from engine.layout import Layout
from server.config import ConfigError, load
from tools.door import Door, SocketDoor, UrlDoor
from tools.options import EXIT_FOUND, EXIT_USAGE, NotADataDirectory, become_owner, exit_with, fail

_FILE = click.Path(path_type=Path)
_TOKEN_VARIABLE = "MOORAGE_TOKEN"


def door_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that lead to a running mirror; it gets a `Door` and `is_json`.

    What goes wrong becomes one line on standard error and an exit code.
    """

    @click.option("--data", metavar="DIR", type=_FILE, help="The mirror's data directory.")
    @click.option("--config", metavar="FILE", type=_FILE, help="The mirror's config.yml.")
    @click.option("--url", metavar="URL", help="The debug port of a mirror, on any machine.")
    @click.option(
        "--token-file", type=_FILE, metavar="F",
        help=f"With --url: the operator's token; else {_TOKEN_VARIABLE} is.",
    )  # fmt: skip
    @click.option("--json", "is_json", is_flag=True, help="Print JSON.")
    @functools.wraps(function)
    def command(
        *,
        data: Path | None,
        config: Path | None,
        url: str | None,
        token_file: Path | None,
        is_json: bool,
        **options: object,
    ) -> None:
        if url is not None and (data or config):
            raise click.UsageError("--url names another way than --data and --config")
        if token_file is not None and url is None:
            raise click.UsageError("--token-file is for --url")
        try:
            door = _open_socket(data, config) if url is None else UrlDoor(url, _token(token_file))
            function(door, is_json=is_json, **options)
        except ConfigError as exc:
            exit_with(exc, is_json=is_json)
        except (NotADataDirectory, InvalidName) as exc:
            fail(exc, EXIT_USAGE, is_json=is_json)
        except CacheError as exc:
            fail(exc, EXIT_FOUND, is_json=is_json)

    return command


def _open_socket(data: Path | None, config: Path | None) -> Door:
    settings = load(config, os.environ, data=data).engine
    become_owner(settings.data_directory)
    return SocketDoor(Layout(settings.data_directory))


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN_VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"--token-file: {exc}") from exc
    if not token.isascii() or not token.isprintable() or not token:
        raise click.UsageError(f"--token-file: {file} does not hold a token")
    return token
