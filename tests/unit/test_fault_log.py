"""What is logged of many like failures."""

import logging
import time

import pytest

from engine.fault_log import INTERVAL_S, FaultLog, RepeatedLines


def test_like_failures_are_logged_once_an_interval_with_their_count() -> None:
    log = FaultLog()
    assert log.admit("hub 503", 0.0) == 0
    assert log.admit("hub 503", 1.0) is None
    assert log.admit("hub 503", INTERVAL_S - 0.1) is None
    assert log.admit("hub 503", INTERVAL_S) == 2
    assert log.admit("hub 503", INTERVAL_S + 1) is None


def test_another_failure_is_not_held_back() -> None:
    log = FaultLog()
    assert log.admit("hub 503", 0.0) == 0
    assert log.admit("hub 429", 0.0) == 0


def test_the_memory_of_failures_is_bounded() -> None:
    log = FaultLog()
    for number in range(5_000):
        log.admit(number, 0.0)
    assert len(log._last) <= 1_000


def test_what_repeats_is_logged_once_with_its_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    warnings = RepeatedLines(logging.getLogger("engine.test"))
    for number in range(5):
        warnings.warn("hub", "fill failed digest=%d", number)
    warnings.warn("quay", "fill failed digest=%d", 7)
    now[0] = INTERVAL_S
    warnings.warn("hub", "fill failed digest=%d", 9)
    assert caplog.messages == [
        "fill failed digest=0 suppressed=0",
        "fill failed digest=7 suppressed=0",
        "fill failed digest=9 suppressed=4",
    ]
