"""When a failing disk is tried again."""

from engine.disk_health import PAUSE_S, DiskHealth


def test_a_disk_that_never_failed_is_always_tried() -> None:
    health = DiskHealth()
    assert all(health.admit(now) for now in (0.0, 0.0, 1.0))


def test_after_a_failure_nobody_tries_until_the_pause_is_over_and_then_one_does() -> None:
    health = DiskHealth()
    health.failed(100.0)
    assert not health.admit(100.0)
    assert not health.admit(100.0 + PAUSE_S - 0.1)
    assert health.admit(100.0 + PAUSE_S)
    assert not health.admit(100.0 + PAUSE_S)


def test_a_try_that_came_to_no_end_is_followed_by_another_after_a_pause() -> None:
    health = DiskHealth()
    health.failed(100.0)
    assert health.admit(100.0 + PAUSE_S)
    assert not health.admit(100.0 + 2 * PAUSE_S - 0.1)
    assert health.admit(100.0 + 2 * PAUSE_S)


def test_success_ends_the_pause() -> None:
    health = DiskHealth()
    health.failed(100.0)
    health.worked()
    assert health.admit(100.0)


def test_only_changes_are_news() -> None:
    health = DiskHealth()
    assert not health.worked()
    assert [health.failed(0.0), health.failed(1.0)] == [True, False]
    assert [health.worked(), health.worked()] == [True, False]
    assert health.failed(2.0)
