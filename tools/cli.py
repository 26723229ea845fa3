"""The `moorage` command.

Rules: exit code 0 = fine, 1 = found something wrong, 2 = usage or configuration. Standard output is
for results only; what went wrong is on standard error, one problem a line, without a traceback.
"""

import json
import os
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click

from server.config import ConfigError, load, to_yaml
from server.config_render import render
from server.settings import LogFormat, ServerSettings
from tools.adopt import adopt
from tools.drain import drain
from tools.healthcheck import healthcheck
from tools.inspect_index import inspect_index
from tools.operate import pin, purge, unpin
from tools.options import exit_with
from tools.status import status
from tools.top import top
from tools.verify_digests import verify_digests
from tools.warm import warm

_FILE = click.Path(path_type=Path)
_config_argument = click.argument("config_argument", metavar="[CONFIG]", required=False, type=_FILE)
_config_option = click.option(
    "--config", "config_option", metavar="FILE", type=_FILE, help="The same as CONFIG."
)
_data_option = click.option(
    "--data", metavar="DIR", type=_FILE, help="Data directory (storage.filesystem.rootdirectory)."
)


@click.group()
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


for command in (
    adopt,
    drain,
    healthcheck,
    inspect_index,
    pin,
    purge,
    status,
    top,
    unpin,
    verify_digests,
    warm,
):
    main.add_command(command)
