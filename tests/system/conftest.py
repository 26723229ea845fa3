"""What the system tests share: one upstream with every image, and a record of what did not run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.clients import Client
from tests.fakes.distribution import PROGRAM, Registry, run_registry, token_config
from tests.fakes.distribution_push import Pusher
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import Site, site_of
from tests.fakes.token_server import Grants, Signer, TokenServer

USER, PASSWORD = "ci", "a secret: with a colon"
_NOT_RUN = "not run: "


def skip_client(name: str, reason: str) -> None:
    """Skip a test for want of a program; the summary repeats why, once a program."""
    pytest.skip(f"{_NOT_RUN}{name} ({reason})")


def require_client(kind: type[Client]) -> None:
    """Skip where this client cannot run."""
    if obstacle := kind.find_obstacle():
        skip_client(kind.name, obstacle)


def require_registry() -> None:
    """Skip where there is no docker-registry."""
    if PROGRAM is None:
        skip_client("docker-registry", "not installed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every client that did not run, so that a green run hides nothing."""
    reports = terminalreporter.getreports("skipped")
    reasons = {report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)}
    missing = sorted(text[text.index(_NOT_RUN) :] for text in reasons if _NOT_RUN in text)
    if missing:
        terminalreporter.section("not run")
        for line in missing:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def tokens() -> Iterator[TokenServer]:
    """The upstream's token server; `USER` alone may pull the private repository."""
    private = {catalogue().private.repository: {USER}}
    with TokenServer(Signer(), Grants({USER: PASSWORD}, private)) as server:
        yield server


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[Registry]:
    """A registry that wants tokens, as Docker Hub does, with every image of the catalogue."""
    require_registry()
    directory = tmp_path_factory.mktemp("upstream")
    with run_registry(directory / "registry", token_config(tokens, directory)) as registry:
        pusher = Pusher(
            registry.address, lambda name: tokens.mint("push", {name: ["pull", "push"]})
        )
        for image in catalogue().all():
            pusher.push(image)
        yield registry


@pytest.fixture
def site(tmp_path: Path, upstream: Registry) -> Site:
    """An empty mirror of `upstream`, with credentials, not started yet."""
    return site_of(tmp_path / "mirror", upstream.url, USER, PASSWORD)
