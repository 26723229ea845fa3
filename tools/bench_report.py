"""What a benchmark has found, as a document and as text.

Invariant: the document holds all samples, so every figure and ratio in it can be made again, and
says on which machine and with which programs it was measured.
"""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tools.bench_cases import Case
from tools.bench_model import Figures, Metric, Sample, compare, summarize

_COLUMNS = (
    "req/s", "MB/s", "s", "p50 ms", "p99 ms", "first byte ms", "CPU s/GB", "CPU s/10k", "RSS MiB",
    "upstream", "failed",
)  # fmt: skip


class Result(msgspec.Struct, frozen=True):
    """One target in one case. `better`: how many times better ours is, the median of rounds."""

    target: str
    figures: Figures
    better: float
    samples: list[Sample]


class CaseReport(msgspec.Struct, frozen=True):
    """One case; ours is the first result."""

    name: str
    title: str
    metric: str
    results: list[Result]


class Report(msgspec.Struct, frozen=True):
    """One run of the benchmark."""

    machine: str
    programs: dict[str, str]
    at: str  # the day
    rounds: int
    seconds: int
    cases: list[CaseReport]


def describe_machine() -> str:
    """Say what was measured on."""
    model = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    name = model[1] if model else platform.machine()
    gib = int(memory[1]) / 2**20 if memory else 0
    python = platform.python_version()
    return (
        f"{os.cpu_count()} processors {name}, {gib:.0f} GiB, Linux {platform.release()},"
        f" Python {python}"
    )


def load_average() -> float:
    """How busy the machine has been in the last minute."""
    return os.getloadavg()[0]


def report_cases(
    cases: Sequence[Case], samples: Mapping[tuple[str, str], list[Sample]], targets: Sequence[str]
) -> list[CaseReport]:
    """Bring samples together; the first target that has a case is what others are compared with."""
    reports = []
    for case in cases:
        found = {name: samples[case.name, name] for name in targets if (case.name, name) in samples}
        if found:
            ours = next(iter(found.values()))
            results = [
                Result(name, summarize(theirs), compare(case.metric, ours, theirs), theirs)
                for name, theirs in found.items()
            ]
            reports.append(CaseReport(case.name, case.title, case.metric.value, results))
    return reports


def print_report(report: Report, console: Console) -> None:
    """Print a table to a terminal, and a line for each result to anything else."""
    if not console.is_terminal:
        for case in report.cases:
            for result in case.results:
                console.file.write(f"{_line(case, result)}\n")
        return
    table = Table("case", "target", *_COLUMNS, "ours is", title=report.machine)
    for case in report.cases:
        for number, result in enumerate(case.results):
            better = f"{result.better:.2f} times better ({case.metric})" if number else ""
            name = "" if number else case.title
            table.add_row(name, result.target, *_cells(result.figures), better)
        table.add_section()
    console.print(table)


def _line(case: CaseReport, result: Result) -> str:
    names = [column.replace(" ", "_") for column in _COLUMNS]
    pairs = zip(names, _cells(result.figures), strict=True)
    figures = " ".join(f"{name}={cell}" for name, cell in pairs)
    by = Metric(case.metric).name.lower()
    return f"case={case.name} target={result.target} {figures} by={by} better={result.better:.2f}"


def _cells(figures: Figures) -> list[str]:
    return [
        f"{figures.req_s:.0f}",
        f"{figures.mb_s:.0f}",
        f"{figures.elapsed_s:.2f}",
        f"{figures.p50_ms:.2f}",
        f"{figures.p99_ms:.2f}",
        f"{figures.first_byte_ms:.1f}",
        f"{figures.cpu_s_per_gb:.3f}",
        f"{figures.cpu_s_per_10k:.2f}",
        f"{figures.peak_rss_mib:.0f}",
        f"{figures.upstream_count:.0f}",
        f"{figures.failed_count}",
    ]


def _read(path: str) -> str:
    return Path(path).read_text(errors="replace")
