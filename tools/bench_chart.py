"""Draws a report as an SVG: for each case a bar a target, on a logarithmic scale. Pure.

Invariant: the bar of ours has the same length in every case, and a bar twice as good is one fixed
step longer, whatever the figure is; the figures themselves are written beside the bars.
"""

from math import log2
from xml.sax.saxutils import escape

from tools.bench_report import CaseReport, Report, Result

_WIDTH = 940
_LABEL_WIDTH = 370
_BAR_HEIGHT = 13
_GAP = 9
_TOP = 56
_BASE = 270.0  # the length of our bar
_STEP = 32.0  # of a factor of two
_SHORTEST = 3.0
_LONGEST = 400.0
_COLORS = ("#1f6feb", "#6e7781", "#bf8700", "#8250df", "#1a7f37", "#cf222e")


def draw_chart(report: Report) -> str:
    """Draw all cases of `report` that have something to be compared with."""
    targets = list(dict.fromkeys(r.target for case in report.cases for r in case.results))
    colors = {name: _COLORS[at % len(_COLORS)] for at, name in enumerate(targets)}
    parts: list[str] = []
    y = _TOP
    for case in report.cases:
        if len(case.results) > 1:
            parts += _draw_case(case, y, colors)
            y += len(case.results) * _BAR_HEIGHT + _GAP
    parts.append(_text(12, y + 10, report.machine, "small"))
    return "\n".join([*_open(y + 22), *_draw_legend(colors), *parts, "</svg>", ""])


def bar_length(better: float) -> float:
    """How long a bar is whose target ours is `better` times better than."""
    if better <= 0:
        return _LONGEST
    return min(_LONGEST, max(_SHORTEST, _BASE - _STEP * log2(better)))


def figure_of(case: CaseReport, result: Result) -> str:
    """The figure that a case is compared by, with its unit."""
    figures = result.figures
    match case.metric:
        case "req/s":
            return f"{figures.req_s:,.0f} req/s"
        case "MB/s":
            return f"{figures.mb_s:,.0f} MB/s"
        case "s":
            return f"{figures.elapsed_s:.2f} s"
        case "CPU s/GB":
            return f"{figures.cpu_s_per_gb:.3f} CPU s/GB"
        case _:
            return f"p99 {figures.p99_ms:.2f} ms"


def _draw_case(case: CaseReport, y: int, colors: dict[str, str]) -> list[str]:
    parts = [_text(12, y + 10, case.title, "label")]
    for result in case.results:
        length = bar_length(result.better)
        parts.append(
            f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{_BAR_HEIGHT - 2}"'
            f' fill="{colors[result.target]}"/>'
        )
        parts.append(_text(_LABEL_WIDTH + length + 6, y + 10, figure_of(case, result), "small"))
        y += _BAR_HEIGHT
    return parts


def _draw_legend(colors: dict[str, str]) -> list[str]:
    parts = [_text(12, 20, "Longer is better; the scale is logarithmic.", "label")]
    x = 12.0
    for name, color in colors.items():
        parts.append(f'<rect x="{x}" y="31" width="11" height="11" fill="{color}"/>')
        parts.append(_text(x + 16, 41, name, "label"))
        x += 40 + 7 * len(name)
    return parts


def _open(height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        f' viewBox="0 0 {_WIDTH} {height}" role="img" font-family="sans-serif">',
        "<style>.label{font-size:12px;fill:#1f2328}.small{font-size:11px;fill:#59636e}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
