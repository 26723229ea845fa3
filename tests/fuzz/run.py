"""Fuzz one target by libFuzzer, guided by coverage of our own code.

    pip install atheris
    python -m tests.fuzz.run request|config|manifest|upstream [--seconds N] [--keep]

Begins with the kept corpus, `tests/fuzz/corpus/TARGET`, which the tests replay; what it finds stays
in a temporary directory, unless `--keep` merges what reaches further into the corpus. A crash ends
it, with the input in a file that it names.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import click

CORPUS = Path(__file__).with_name("corpus")
TARGETS = ("request", "config", "manifest", "upstream")
_MAX_INPUT_BYTES = 4_096
_SLOW_S = 5


@click.command()
@click.argument("name", metavar="TARGET", type=click.Choice(TARGETS))
@click.option("--seconds", default=600, show_default=True)
@click.option("--keep", is_flag=True, help="Merge what reaches further into the kept corpus.")
def main(name: str, seconds: int, *, keep: bool) -> None:
    """Fuzz TARGET."""
    atheris = importlib.import_module("atheris")  # not everybody has it

    with atheris.instrument_imports(include=["engine", "server", "yaml"]):
        from tests.fuzz.request_target import RequestTarget
        from tests.fuzz.targets import PARSERS

    kept = CORPUS / name
    found = Path(tempfile.mkdtemp(prefix=f"moorage-fuzz-{name}-"))
    options = [f"-max_len={_MAX_INPUT_BYTES}", f"-timeout={_SLOW_S}", f"-artifact_prefix={found}/"]
    options += ["-merge=1"] if keep else [f"-max_total_time={seconds}"]
    places = [kept, found] if keep else [found, kept]
    target = RequestTarget() if name == "request" else PARSERS[name]
    click.echo(f"new inputs go to {found}", err=True)
    atheris.Setup([sys.argv[0], *options, *map(str, places)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
