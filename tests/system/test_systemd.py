"""The unit file: sound, tight, and true to what the server says to a service manager."""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.fakes.child import START_TIMEOUT_S, Child, clean_environment
from tests.fakes.mirror import PROGRAM, Mirror
from tests.fakes.readme import ROOT
from tests.system.conftest import skip_client

pytestmark = pytest.mark.system

UNIT = ROOT / "tools" / "deploy" / "moorage.service"
INSTALLED = "/opt/moorage/bin/moorage"
_MAX_EXPOSURE = 2.0


def setting(name: str) -> str:
    """The one value of a setting."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert isinstance(value, str)
    return value


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        skip_client("systemd-analyze", "not installed: systemd")
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, str(PROGRAM)))
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_leaves_little_exposed() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for moorage\.service: (\d+\.\d+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= _MAX_EXPOSURE


class Manager:
    """Stands in for systemd: receives what it is told."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(START_TIMEOUT_S)
        self._socket.bind(address.replace("@", "\0"))

    def next(self, first: str) -> dict[str, str]:
        """Receive notices until one begins with `first`; return it as a mapping."""
        while True:
            lines = self._socket.recv(65536).decode().splitlines()
            if lines[0] == first:
                return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify")
    found = Manager(name if request.param == "path" else f"@{name[-60:]}")
    yield found
    found.close()


@contextmanager
def started(tmp_path: Path, manager: Manager) -> Iterator[Mirror]:
    """Run the unit's own command line, as systemd would."""
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump({"version": 0.1, "http": {"addr": "127.0.0.1:0"}}))
    command = setting("ExecStart").replace(INSTALLED, str(PROGRAM))
    command = command.replace("/etc/moorage/config.yml", str(config))
    command = command.replace("${CACHE_DIRECTORY}", str(tmp_path / "cache"))
    environment = clean_environment(tmp_path, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="200000")
    with Child(command.split(), env=environment, log=tmp_path / "log") as child:
        yield Mirror(child)


def test_systemd_is_told_of_every_turn(tmp_path: Path, manager: Manager) -> None:
    assert setting("Type") == "notify"
    assert setting("ExecReload") == "/bin/kill -HUP $MAINPID"
    with started(tmp_path, manager) as mirror:
        assert manager.next("READY=1")["STATUS"].startswith("serving docker.io on 127.0.0.1:")
        manager.next("WATCHDOG=1")
        manager.next("WATCHDOG=1")
        mirror.child.signal(signal.SIGHUP)
        assert int(manager.next("RELOADING=1")["MONOTONIC_USEC"]) > 0
        manager.next("READY=1")
        mirror.child.signal(signal.SIGTERM)
        stopping = manager.next("STOPPING=1")
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 25_000_000
        assert mirror.child.wait() == 0


def test_a_start_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text("version: 0.1\nnonsense: 1\n")
    done = subprocess.run([PROGRAM, "serve", config], capture_output=True, check=False)
    assert str(done.returncode) == setting("RestartPreventExitStatus")
