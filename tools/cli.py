"""The `moorage` command.

Rules: exit code 0 = fine, 1 = found something wrong, 2 = usage or configuration. Standard output is
for results only; what went wrong is on standard error, one problem a line, without a traceback.
"""

import json
import os
import sys
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click

from server.config import ConfigError, load, to_yaml
from server.config_render import render
from server.settings import LogFormat, ServerSettings
from tools.options import exit_with

_FILE = click.Path(path_type=Path)
_config_argument = click.argument("config_argument", metavar="[CONFIG]", required=False, type=_FILE)
_config_option = click.option(
    "--config", "config_option", metavar="FILE", type=_FILE, help="The same as CONFIG."
)
_data_option = click.option(
    "--data", metavar="DIR", type=_FILE, help="Data directory (storage.filesystem.rootdirectory)."
)


# The other commands: where each is. `_Commands` imports what is asked for and no more, since a
# server that runs for months need not hold tables and progress bars in memory.
_PLACES = {
    "adopt": "tools.adopt:adopt",
    "drain": "tools.drain:drain",
    "healthcheck": "tools.healthcheck:healthcheck",
    "inspect-index": "tools.inspect_index:inspect_index",
    "pin": "tools.operate:pin",
    "purge": "tools.operate:purge",
    "status": "tools.status:status",
    "top": "tools.top:top",
    "unpin": "tools.operate:unpin",
    "verify-digests": "tools.verify_digests:verify_digests",
    "warm": "tools.warm:warm",
}


class _Commands(click.Group):
    """The commands of this module and, imported when they are asked for, those of `_PLACES`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_PLACES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return super().get_command(ctx, cmd_name)
        module, _, name = _PLACES[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands)
@click.version_option(version("moorage"), prog_name="moorage")
def main() -> None:
    """A pull-through mirror for container registries.

    CONFIG is a config.yml as of the official registry image; without one,
    REGISTRY_CONFIGURATION_PATH names it. REGISTRY_* variables override it, flags override both.
    """


@main.command()
@_config_argument
@_config_option
@_data_option
@click.option("--upstream", metavar="URL", help="The registry to mirror (proxy.remoteurl).")
@click.option("--listen", metavar="HOST:PORT", help="Address to serve at (http.addr).")
@click.option("--json", "is_json", is_flag=True, help="Log as JSON (log.formatter).")
def serve(
    *,
    config_argument: Path | None,
    config_option: Path | None,
    data: Path | None,
    upstream: str | None,
    listen: str | None,
    is_json: bool,
) -> None:
    """Serve: without arguments, a mirror of Docker Hub on 127.0.0.1:5000."""
    path = _choose_config(config_argument, config_option)

    def read() -> ServerSettings:
        settings = load(path, os.environ, upstream=upstream, data=data, listen=listen)
        if is_json:
            return replace(settings, log=replace(settings.log, formatter=LogFormat.JSON))
        return settings

    try:
        settings = read()
    except ConfigError as exc:
        exit_with(exc, is_json=False)
    # Not at the top: the other commands need no HTTP client and no event loop.
    from server.app import run

    sys.exit(run(settings, reread=read))


@main.command("check-config")
@_config_argument
@_config_option
@_data_option
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def check_config(
    *,
    config_argument: Path | None,
    config_option: Path | None,
    data: Path | None,
    is_json: bool,
) -> None:
    """Print the configuration as it would be used, secrets masked.

    Warnings go to standard error, or with --json beside the configuration.
    """
    path = _choose_config(config_argument, config_option)
    try:
        settings = load(path, os.environ, data=data)
    except ConfigError as exc:
        exit_with(exc, is_json=is_json)
    _print_settings(settings, is_json=is_json)


def _choose_config(argument: Path | None, option: Path | None) -> Path | None:
    if argument is not None and option is not None and argument != option:
        raise click.UsageError("CONFIG and --config name different files")
    return argument or option


def _print_settings(settings: ServerSettings, *, is_json: bool) -> None:
    if is_json:
        shown = {"config": render(settings), "warnings": settings.warnings}
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(to_yaml(render(settings)), nl=False)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
