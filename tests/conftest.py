"""Fixtures that every slice of the suite shares."""

import signal

import pytest


def pytest_configure() -> None:
    """Heed SIGINT, and so do all children: a shell has what it runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run each async test on uvloop and on asyncio's own loop."""
    backend: tuple[str, dict[str, bool]] = request.param
    return backend
