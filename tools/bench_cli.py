"""The command `tools/bench`.

Invariant: what cannot be measured is named on standard error, never silently left out. Standard
output is for results only. Exit codes: 0 fine, 1 some request failed, 2 it could not run.
"""

import os
import sys
import time
from pathlib import Path
from typing import NoReturn, TypedDict, Unpack

import click
import msgspec
from rich.console import Console

from tools.bench_cases import list_cases
from tools.bench_chart import draw_chart
from tools.bench_content import QUICK_SIZES, Sizes
from tools.bench_lab import Cpus, Lab, open_lab
from tools.bench_process import ChildFailed
from tools.bench_pull import PullFailed
from tools.bench_report import Report, describe_machine, load_average, print_report, report_cases
from tools.bench_run import Bounds, Runner
from tools.bench_servers import (
    Target,
    find_program,
    moorage,
    nginx_static,
    program_version,
    registry,
)

EXIT_FAILED = 1
EXIT_USAGE = 2

_ROOT = Path(__file__).parents[1]
_PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "docker-registry": "docker-registry"}
_NEEDED = ("wrk", "nginx")  # nginx is the upstream as well
# A round of everything, by which a run ends that the machine is too slow for.
_BOUNDS = Bounds(rounds=3, seconds=2, total_s=870.0)
_QUICK_BOUNDS = Bounds(rounds=1, seconds=1, total_s=110.0)

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)
_PROGRAM = click.Path(exists=True, dir_okay=False, resolve_path=True)


class _Options(TypedDict):
    json_file: Path | None
    chart_file: Path | None
    only: tuple[str, ...]
    chosen: tuple[str, ...]
    rounds: int | None
    seconds: int | None
    programs: tuple[str, ...]
    checkouts: tuple[Path, ...]
    quick: bool


@click.command()
@click.option("--json", "json_file", metavar="FILE", type=_FILE, help="Write all samples here.")
@click.option("--chart", "chart_file", metavar="FILE", type=_FILE, help="Draw an SVG here.")
@click.option("--only", "only", metavar="NAME", multiple=True, help="Only this case; repeatable.")
@click.option("--target", "chosen", metavar="NAME", multiple=True, help="Only this target.")
@click.option("--rounds", type=click.IntRange(1), help="How often all is measured (3).")
@click.option("--seconds", type=click.IntRange(1), help="Of a warm case at one target (2).")
@click.option(
    "--registry", "programs", metavar="PATH", type=_PROGRAM, multiple=True,
    help="A further binary of distribution's registry; repeatable.",
)  # fmt: skip
@click.option(
    "--checkout", "checkouts", metavar="DIR", type=_DIRECTORY, multiple=True,
    help="A further checkout of Moorage; repeatable.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="One short round of less content: within two minutes.")
def main(**options: Unpack[_Options]) -> None:
    """Measure Moorage beside nginx and other registries, in turns, on this machine.

    Servers have one processor and clients another. The default run takes up to fifteen minutes. To
    compare, look at ratios: figures hold for the machine and the hour only.
    """
    is_quick = options["quick"]
    base = _QUICK_BOUNDS if is_quick else _BOUNDS
    rounds, seconds = options["rounds"] or base.rounds, options["seconds"] or base.seconds
    cpus = _choose_cpus()
    _require_programs()
    try:
        with open_lab(cpus, QUICK_SIZES if is_quick else Sizes()) as lab:
            report = _measure(lab, options, Bounds(rounds, seconds, base.total_s))
    except (ChildFailed, PullFailed) as exc:
        _refuse(str(exc))
    _deliver(report, options["json_file"], options["chart_file"])


def _choose_cpus() -> Cpus:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        _refuse("needs two processors: one for the server, one for its clients")
    return Cpus(usable[0], usable[1])


def _require_programs() -> None:
    """Name what is missing; go on without it where that is possible."""
    missing = [name for name in _PACKAGES if find_program(name) is None]
    for name in missing:
        click.echo(f"left out: {name} (not installed: apt install {_PACKAGES[name]})", err=True)
    if any(name in missing for name in _NEEDED):
        _refuse(f"cannot measure without {' and '.join(_NEEDED)}")


def _choose_targets(lab: Lab, options: _Options) -> list[Target]:
    targets = [moorage("moorage", _ROOT)]
    targets += [moorage(f"moorage@{path.name}", path) for path in options["checkouts"]]
    targets.append(nginx_static(lab.content))
    debian = find_program("docker-registry")
    if debian is not None:
        targets.append(registry("docker-registry", debian))
    targets += [registry(Path(path).name, path) for path in options["programs"]]
    targets.append(moorage("moorage-tls", _ROOT, pair=lab.pair))
    targets.append(nginx_static(lab.content, "nginx-tls", lab.pair))
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        _refuse(f"two targets have one name: {', '.join(names)}")
    chosen = options["chosen"]
    _require_known("target", chosen, names)
    return [target for target in targets if not chosen or target.name in chosen]


def _measure(lab: Lab, options: _Options, bounds: Bounds) -> Report:
    targets, only = _choose_targets(lab, options), options["only"]
    cases = list_cases(lab.content)
    _require_known("case", only, [case.name for case in cases])
    cases = [case for case in cases if not only or case.name in only]
    busy = load_average()
    if busy > 0.5:
        click.echo(f"the machine is not idle: load average {busy:.1f}", err=True)
    names = [target.name for target in targets]  # the runner turns its own list
    with Console(stderr=True).status("start") as status:
        tell = status.update
        runner = Runner(lab, _program("wrk"), targets, bounds.seconds, tell)
        samples, rounds = runner.run(cases, bounds)
    if rounds < bounds.rounds:
        click.echo(f"rounds left out for lack of time: {bounds.rounds - rounds}", err=True)
    return Report(
        machine=describe_machine(),
        programs=_describe_programs(),
        at=time.strftime("%Y-%m-%d", time.gmtime()),
        rounds=rounds,
        seconds=bounds.seconds,
        cases=report_cases(cases, samples, names),
    )


def _describe_programs() -> dict[str, str]:
    versions = {"wrk": "-v", "nginx": "-v", "docker-registry": "--version"}
    found = {name: find_program(name) for name in versions}
    return {name: program_version([path, versions[name]]) for name, path in found.items() if path}


def _deliver(report: Report, json_file: Path | None, chart_file: Path | None) -> None:
    print_report(report, Console())
    if json_file is not None:
        encoded = msgspec.json.encode(report)
        json_file.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
    if chart_file is not None:
        chart_file.write_text(draw_chart(report))
    results = [result for case in report.cases for result in case.results]
    if failed := sum(result.figures.failed_count for result in results):
        click.echo(f"requests failed: {failed}", err=True)
        sys.exit(EXIT_FAILED)


def _require_known(what: str, chosen: tuple[str, ...], known: list[str]) -> None:
    unknown = [name for name in chosen if name not in known]
    if unknown:
        _refuse(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")


def _program(name: str) -> str:
    found = find_program(name)
    assert found is not None, f"{name} was there a moment ago"
    return found


def _refuse(why: str) -> NoReturn:
    click.echo(f"tools/bench: {why}", err=True)
    sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
