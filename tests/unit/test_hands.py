"""Threads that leave the processor to the event loop."""

import logging
import os

import pytest

from engine.hands import make_pool


def find_policy() -> int:
    return os.sched_getscheduler(0)


def test_threads_never_preempt_and_have_their_full_share() -> None:
    before = find_policy()
    with make_pool("test", 1) as pool:
        assert pool.submit(find_policy).result() == os.SCHED_BATCH
        assert pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == 0
    assert find_policy() == before


def test_threads_work_where_the_policy_is_not_theirs_to_choose(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    caplog.set_level(logging.DEBUG)
    with make_pool("test", 1) as pool:
        assert pool.submit(find_policy).result() == find_policy()
    assert "threads run as any other: [Errno 1] Operation not permitted" in caplog.text
