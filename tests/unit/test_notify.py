"""What a service manager sets in the environment, and what is made of it."""

import logging

import pytest

from server.notify import NotifyError, ServiceManager, parse_address, watchdog_interval_s


def test_an_address_is_a_path_or_an_abstract_name() -> None:
    assert parse_address("/run/systemd/notify") == "/run/systemd/notify"
    assert parse_address("@org/notify") == "\0org/notify"


@pytest.mark.parametrize("text", ["", "@", "run/notify", "vsock:2:1234"])
def test_another_address_is_refused(text: str) -> None:
    with pytest.raises(NotifyError, match="neither a path nor an abstract name"):
        parse_address(text)


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_told_twice_as_often_as_it_asks(
    environ: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(environ, 7) == interval_s


def test_no_child_finds_the_managers_socket() -> None:
    environ = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    ServiceManager.from_environment(environ).close()
    assert environ == {"HOME": "/"}


def test_a_manager_that_cannot_be_told_is_logged_and_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": "/nowhere/notify"})
    with caplog.at_level(logging.WARNING):
        manager.ready("serving")
    manager.close()
    assert "service manager not told notice=READY=1 cause=" in caplog.text


def test_a_socket_of_another_kind_is_logged_and_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        ServiceManager.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}).ready("serving")
    assert "NOTIFY_SOCKET='vsock:2:1234'" in caplog.text


def test_without_a_manager_nothing_is_said() -> None:
    manager = ServiceManager.from_environment({})
    manager.ready("serving")
    with manager.reloading():
        pass
    manager.stopping(1)
    manager.close()
