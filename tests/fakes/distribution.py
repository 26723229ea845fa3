"""Debian's docker-registry: as upstream, and as the pull-through mirror we are compared with.

Counting: the registry writes an access line when a response is done. `served` first makes a request
of its own and waits for its line, so every response that a client has read whole is counted.
"""

import http.client
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.fakes.child import Child, clean_environment
from tests.fakes.token_server import ISSUER, SERVICE, TokenServer

PROGRAM = shutil.which("docker-registry", path="/usr/sbin:/usr/bin")
_ACCESS_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/1\.\d" (?P<status>\d{3}) ')
_LISTENING = r"listening on (?P<address>127\.0\.0\.1:\d+)"

Config = dict[str, object]


@dataclass(frozen=True, slots=True)
class Served:
    """One response of a registry."""

    method: str
    path: str
    status: int

    @property
    def is_content(self) -> bool:
        """Whether it answered with what was asked for: not an error, not a challenge."""
        return self.status < 400


class Registry:
    """A running docker-registry."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.address = child.wait_for(_LISTENING)["address"]
        self._barriers = 0

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.address}"

    def served(self) -> list[Served]:
        """List the responses so far, without those to `served` itself."""
        self._barriers += 1
        mark = f"barrier-{self._barriers}-"
        self._request(f"/{mark}")
        self._child.wait_for(f'"GET /{mark} ')
        found = [_ACCESS_LINE.search(line) for line in self._child.lines()]
        lines = [Served(m["method"], m["target"], int(m["status"])) for m in found if m]
        return [line for line in lines if not line.path.startswith("/barrier-")]

    def counts(self) -> Counter[tuple[str, str]]:
        """Count the responses with content by method and path."""
        return Counter((line.method, line.path) for line in self.served() if line.is_content)

    def _request(self, path: str) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def run_registry(directory: Path, config: Config) -> Iterator[Registry]:
    """Run docker-registry with `config` on top of the least that it needs."""
    directory.mkdir(parents=True)
    assert PROGRAM is not None, "docker-registry is not installed"
    file = directory / "config.yml"
    base: Config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": "127.0.0.1:0", "net": "tcp"},
    }
    file.write_text(yaml.safe_dump(base | config))
    argv = [PROGRAM, "serve", str(file)]
    with Child(argv, env=clean_environment(directory), log=directory / "log") as child:
        yield Registry(child)


def token_config(tokens: TokenServer, directory: Path) -> Config:
    """Configure a registry to want tokens of `tokens`."""
    bundle = directory / "bundle.pem"
    bundle.write_bytes(tokens.signer.certificate_pem)
    token = {
        "realm": tokens.realm,
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(bundle),
    }
    return {"auth": {"token": token}}


def proxy_config(upstream_url: str, username: str = "", password: str = "") -> Config:
    """Configure a registry as a pull-through mirror of `upstream_url`."""
    proxy = {"remoteurl": upstream_url, "username": username, "password": password}
    return {"proxy": proxy}
