"""The chart is well-formed, shows all that was compared, and its bars tell the truth."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tools.bench_chart import bar_length, draw_chart
from tools.bench_model import Sample, summarize
from tools.bench_report import CaseReport, Report, Result

SVG = "{http://www.w3.org/2000/svg}"


def result(target: str, count: int, better: float) -> Result:
    samples = [Sample(count, count, 1.0)]
    return Result(target, summarize(samples), better, samples)


def report(*cases: CaseReport) -> Report:
    return Report("2 processors", {"nginx": "1.22"}, "2026-11-24", 3, 2, list(cases))


def test_a_chart_is_an_svg_with_a_bar_and_a_figure_for_each_target() -> None:
    case = CaseReport(
        "x", "blob < 1 KiB & more", "req/s", [result("ours", 2_000, 1), result("nginx", 1_000, 2)]
    )
    root = ElementTree.fromstring(draw_chart(report(case)))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"blob < 1 KiB & more", "ours", "nginx", "2,000 req/s", "1,000 req/s"} <= set(texts)
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")]
    ours, theirs = widths[-2:]
    assert ours == bar_length(1) > theirs == bar_length(2)


def test_a_case_of_one_target_has_nothing_to_show() -> None:
    case = CaseReport("x", "alone", "req/s", [result("ours", 1, 1)])
    assert "alone" not in draw_chart(report(case))


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_better_is_never_shorter(one: float, other: float) -> None:
    worse, better = max(one, other), min(one, other)  # ours is so many times better than that
    assert bar_length(worse) <= bar_length(better)


def test_a_factor_of_two_is_one_step_wherever_it_is() -> None:
    steps = {round(bar_length(2**n) - bar_length(2 ** (n + 1)), 6) for n in range(-3, 7)}
    assert len(steps) == 1
    assert steps.pop() > 0


def test_a_target_that_failed_altogether_has_a_bar_within_the_picture() -> None:
    assert bar_length(float("inf")) > 0
    assert bar_length(0.0) <= 400
