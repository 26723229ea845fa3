"""A real Prometheus, Debian's, that scrapes a mirror and evaluates the rules that ship with it."""

import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from tests.fakes.child import Child, clean_environment

T = TypeVar("T")

MONITORING = Path(__file__).parents[2] / "tools" / "monitoring"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")

_INTERVAL = "200ms"
_POLL_S = 0.1
_TIMEOUT_S = 60.0
_READY = r'msg="Server is ready to receive web requests."'
_LISTENING = r'msg="Listening on" address=(?P<address>127\.0\.0\.1:\d+)'


class _Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Result(msgspec.Struct):
    result: list[_Series]


class _Vector(msgspec.Struct):
    data: _Result


class _Rule(msgspec.Struct):
    name: str
    health: str
    error: str = msgspec.field(name="lastError", default="")


class _Group(msgspec.Struct):
    rules: list[_Rule]


class _Groups(msgspec.Struct):
    groups: list[_Group]


class _Rules(msgspec.Struct):
    data: _Groups


@dataclass(frozen=True, slots=True)
class Sample:
    """A series of an instant query, and its value."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """A running Prometheus. It tells nobody of a scrape, so waiting is asking again."""

    def __init__(self, child: Child) -> None:
        child.wait_for(_READY)
        self._url = f"http://{child.wait_for(_LISTENING)['address']}/api/v1"

    def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now. Raises `HTTPError` for one that is wrong."""
        found = msgspec.json.decode(self._get("query", query=expression), type=_Vector)
        return [Sample(each.metric, float(each.value[1])) for each in found.data.result]

    def rules(self) -> dict[str, tuple[str, str]]:
        """All rules, by name: their health and what went wrong with them last."""
        found = msgspec.json.decode(self._get("rules"), type=_Rules)
        rules = [rule for group in found.data.groups for rule in group.rules]
        return {rule.name: (rule.health, rule.error) for rule in rules}

    def wait_for(self, get: Callable[[], T], is_right: Callable[[T], bool]) -> T:
        """Ask by `get` until the answer is right. Raises `TimeoutError`."""
        give_up_at = time.monotonic() + _TIMEOUT_S
        while not is_right(found := get()):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"Prometheus still says {found!r}")
            time.sleep(_POLL_S)
        return found

    def wait_scraped(self, metric: str, at_least: float = 1.0) -> None:
        """Wait for a scrape in which all series of a metric together are so large."""
        self.wait_for(
            lambda: self.query(f"sum({metric})"),
            lambda found: bool(found) and found[0].value >= at_least,
        )

    def _get(self, path: str, **parameters: str) -> bytes:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            return bytes(response.read())


@contextmanager
def run_prometheus(directory: Path, target: str) -> Iterator[Prometheus]:
    """Scrape `target` (host:port) by the shipped configuration, but more often."""
    assert PROMETHEUS is not None
    directory.mkdir()
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL}
    config["rule_files"] = [str(MONITORING / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    argv = [
        PROMETHEUS,
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    environment = clean_environment(directory)
    with Child(argv, env=environment, log=directory / "log") as child:
        yield Prometheus(child)
