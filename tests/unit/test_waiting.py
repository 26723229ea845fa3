"""A bar for what may take long: only for people, and only once it does."""

import io
import sys

import pytest

from tools import waiting
from tools.waiting import shown_wait


class Terminal(io.StringIO):
    """A standard error that people look at."""

    def isatty(self) -> bool:
        return True


def wait(step_count: int) -> None:
    with shown_wait("counting", step_count) as advance:
        for _ in range(step_count):
            advance()


def test_what_takes_long_shows_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(waiting, "_PATIENCE_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    wait(3)
    assert "counting" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased


def test_what_is_soon_over_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(waiting, "_PATIENCE_S", 3600.0)
    wait(3)
    assert terminal.getvalue() == ""


def test_a_file_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    monkeypatch.setattr(waiting, "_PATIENCE_S", 0.0)
    wait(3)
    assert pipe.getvalue() == ""
