"""Rates between what was shown before and what is shown now; lines and screens made of them."""

import io
from dataclasses import replace

import msgspec
import pytest
from rich.console import Console

from server.facts import (
    BreakerFacts,
    ErrorFacts,
    Facts,
    FillFacts,
    PauseFacts,
    PulledFacts,
    ReconcileFacts,
    Sample,
    ScrubFacts,
    ServerFacts,
    SpaceFacts,
    TrafficFacts,
    UpstreamFacts,
)
from tools.output import to_lines
from tools.rates import Rates, between, fill_bytes_s, rates_of, series
from tools.status import make_report
from tools.top import to_line
from tools.top_screen import View, draw, gauge, spark

HOSTILE = "[red]x[/] \x1b[2J\nnext"


def sample(at: float, count: int) -> Sample:
    return Sample(at, count, count, count // 2, count * 1000)


def facts_at(now: float, count: int, *, pid: int = 1, written_bytes: int = 0) -> Facts:
    return Facts(
        ServerFacts("1.0", pid, 0.0, now, "ready", 3, ["http://127.0.0.1:5000"], "/data", 25.0),
        TrafficFacts(count, count * 1000, 0.5, 0.25, {"hit": count}, 0.001, 0.01, 0, 0),
        [sample(now - 5, 0), sample(now, count)],
        SpaceFacts(1000, 400, 300, 50, 100, 950, 900),
        [FillFacts("sha256:" + "a" * 64, "docker.io/a/b", 1000, written_bytes, 2, 90.0, True)],
        [
            UpstreamFacts(
                "docker.io", "https://x", ["docker.io"],
                [BreakerFacts("control", 3.0, HOSTILE)], [PauseFacts("manifest", 60.0)],
                100, 7, 21600, 12, 3,
            )
        ],
        [PulledFacts("docker.io/a/b", 1, 2, 3000)],
        None,
        [ErrorFacts("failure", 1.0, now, 9, 503, "docker.io/a/b", "", HOSTILE)],
        ScrubFacts(True, False, 0, 0, 0, None),
        ReconcileFacts(False, 0, 0, 0, 0, None),
    )  # fmt: skip


def test_a_rate_is_what_came_between_two_samples() -> None:
    assert between(sample(10, 0), sample(12, 8)) == Rates(4.0, 4000.0, 0.5)
    assert between(sample(10, 8), sample(12, 8)) == Rates(0.0, 0.0, None)
    assert series([sample(0, 0), sample(1, 2), sample(2, 2)]) == [
        Rates(2.0, 2000.0, 0.5),
        Rates(0.0, 0.0, None),
    ]


def test_rates_are_since_the_last_look_unless_the_server_is_another_one() -> None:
    before, now = facts_at(100, 10), facts_at(101, 20)
    assert rates_of(now, before).requests_s == 10.0
    assert rates_of(now, None).requests_s == 4.0
    assert rates_of(now, facts_at(100, 1000, pid=2)).requests_s == 4.0


def test_a_fills_rate_is_since_the_last_look_or_since_it_began() -> None:
    before, now = facts_at(100, 0, written_bytes=200), facts_at(102, 0, written_bytes=600)
    (fill,) = now.fills
    assert fill_bytes_s(fill, now, before) == 200.0
    assert fill_bytes_s(fill, now, None) == 50.0
    restarted = msgspec.structs.replace(fill, begun_at=101.0)
    assert fill_bytes_s(restarted, now, before) == 600.0


def test_bars_and_gauges_keep_to_their_width() -> None:
    assert spark([]) == ""
    assert spark([0.0, 0.0]) == "▁▁"
    assert spark([0.0, 5.0, 10.0]) == "▁▅█"
    assert (gauge(0.5, 4), gauge(7.0, 2), gauge(-1.0, 2)) == ("██░░", "██", "░░")


def screen(view: View, *, width: int = 120, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    console.print(draw(view, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 120])
def test_the_screen_shows_text_from_outside_as_text(width: int) -> None:
    shown = screen(View(facts_at(100, 10)), width=width)
    assert "\x1b[2J" not in shown
    assert "ready" in shown
    assert "docker.io/a/b" in screen(View(facts_at(100, 10)))
    assert "7 of 100" in screen(View(facts_at(100, 10)))
    assert "[red]x[/] ?[2J?next" in screen(View(facts_at(100, 10)), width=200)


def test_a_mirror_out_of_reach_is_said_so_and_what_was_known_stays() -> None:
    lost = View(facts_at(100, 10), None, 100.0, "nobody listens there")
    assert "not reachable since 00:01:40 UTC: nobody listens there" in screen(lost)
    assert "docker.io/a/b" in screen(lost)
    assert "not reachable" in screen(replace(lost, facts=None))
    assert to_line(lost) == "state=unreachable\tcause=nobody listens there"


def test_a_line_has_everything_by_its_key() -> None:
    line = to_line(View(facts_at(101, 20), facts_at(100, 10)))
    found = dict(each.split("=", 1) for each in line.split("\t"))
    assert found["requests_s"] == "10.0"
    assert found["hit_share"] == "0.5000"
    assert (found["fills"], found["errors"]) == ("1", "9")


def test_status_never_breaks_a_line() -> None:
    lines = to_lines(make_report(facts_at(100, 10)))
    assert "used_share\t0.4000" in lines
    assert any(line.startswith("errors\t") and "[red]x[/] ?[2J?next" in line for line in lines)
    assert any("manifest: paused for 60 s" in line for line in lines)
