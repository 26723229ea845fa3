"""`moorage healthcheck`: whether a mirror answers, by an exit code."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.mirror import PROGRAM, Mirror, Site, site_of

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_of(tmp_path / "mirror", "http://127.0.0.1:1")


@pytest.fixture
def mirror(site: Site) -> Iterator[Mirror]:
    with site.start() as mirror:
        yield mirror


def check(site: Site) -> subprocess.CompletedProcess[str]:
    argv = [str(PROGRAM), "healthcheck", "--data", str(site.data)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_a_mirror_that_answers_is_healthy_whatever_its_upstream_does(
    site: Site, mirror: Mirror
) -> None:
    done = check(site)
    assert (done.returncode, done.stdout) == (0, "is_alive\tyes\n")


def test_a_mirror_that_was_stopped_is_not(site: Site, mirror: Mirror) -> None:
    assert mirror.drain() == 0
    done = check(site)
    assert (done.returncode, done.stdout) == (1, "is_alive\tno\n")


def test_a_mirror_that_stands_still_is_not(site: Site, mirror: Mirror) -> None:
    mirror.child.signal(signal.SIGSTOP)
    try:
        assert check(site).returncode == 1
    finally:
        mirror.child.signal(signal.SIGCONT)


def test_where_there_is_no_data_directory_that_is_said(site: Site) -> None:
    done = check(site)
    assert done.returncode == 2
    assert "No such file or directory; name it: --data DIR" in done.stderr
