"""The dashboard and the alerts that ship with the mirror, before a real Prometheus."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.fakes.clients import Sandbox
from tests.fakes.mirror import Mirror, Site, site_of
from tests.fakes.prometheus import (
    MONITORING,
    PROMETHEUS,
    PROMTOOL,
    Prometheus,
    Sample,
    run_prometheus,
)
from tests.fakes.readme import ROOT
from tests.fakes.scrape import Scrape
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import make_bytes
from tests.system.alert_cases import CASES, to_promtool
from tests.system.conftest import skip_client
from tests.system.raw import ask

pytestmark = pytest.mark.system

RULES = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "dashboard.json"
REPOSITORY = "library/app"
LIMITS = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
# What is shown only while something goes wrong.
MAY_BE_EMPTY = re.compile(r"moorage_upstream_refused_total.* > 0$")


def promtool(*arguments: str, given: str | None = None) -> None:
    """Run promtool; fail with what it says unless it is content."""
    if PROMTOOL is None:
        skip_client("promtool", "not installed: prometheus")
    done = subprocess.run(
        [str(PROMTOOL), *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr  # advice on names


def alerts() -> dict[str, str]:
    """All alerts' expressions by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {rule["alert"]: rule["expr"] for rule in rules if "alert" in rule}


def panels() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def queries() -> list[str]:
    """All of the dashboard's queries, for any mirror and a fixed interval."""
    targets = [target for panel in panels() for target in panel.get("targets", [])]  # type: ignore[attr-defined] # JSON
    return [
        target["expr"].replace("$instance", ".*").replace("$__rate_interval", "30s")
        for target in targets
    ]


def test_rules_and_configuration_are_sound() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    promtool("check", "config", str(MONITORING / "prometheus.yml"))


def test_each_alert_fires_when_it_should_and_stays_quiet_when_not(tmp_path: Path) -> None:
    assert [case.alert for case in CASES] == list(alerts())
    file = tmp_path / "alerts_test.yml"
    file.write_text(yaml.safe_dump(to_promtool(str(RULES))))
    promtool("test", "rules", str(file))


def test_every_alert_says_what_to_do_and_the_readme_lists_it() -> None:
    readme = (ROOT / "README.md").read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in {"critical", "warning", "info"}
                assert set(rule["annotations"]) == {"summary", "action"}
                assert f"`{rule['alert']}`" in readme


def test_panels_have_their_own_place_and_number() -> None:
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        assert isinstance(place, dict)
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)


@dataclass(frozen=True, slots=True)
class Rig:
    """A mirror with a debug port, and its upstream."""

    mirror: Mirror
    thread: ThreadedUpstream
    debug_address: str

    def scrape(self) -> str:
        url = f"http://{self.debug_address}/metrics"
        with urllib.request.urlopen(url, timeout=30) as response:
            return str(response.read().decode())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("monitored")
    with ThreadedUpstream() as thread:
        thread.upstream.answer_headers.update(LIMITS)
        layers = (make_bytes(400_000), make_bytes(3_000_000, seed=1))
        thread.upstream.content.add_image(REPOSITORY, "1", layers)
        site = site_of(directory, thread.upstream.url)
        debug = {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}}
        http = {"addr": "127.0.0.1:0", "debug": debug}
        with Site(directory, site.config | {"http": http}).start() as mirror:
            port = mirror.child.wait_for(r"debug port open addr=(?P<address>\S+)")
            yield Rig(mirror, thread, port["address"])


def pull(rig: Rig, directory: Path) -> None:
    """Pull the image as skopeo does."""
    image = f"docker://{rig.mirror.address}/{REPOSITORY}:1"
    command = ("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", image)
    Sandbox(directory / "state").run(*command, f"dir:{directory / 'image'}")


def test_a_scrape_is_as_promtool_wants_it(rig: Rig) -> None:
    assert ask(rig.mirror.address, f"/v2/{REPOSITORY}/manifests/1").status == 200
    promtool("check", "metrics", given=rig.scrape())


def test_rules_and_dashboard_use_metrics_that_there_are(rig: Rig) -> None:
    """Without Prometheus, too: a name that is misspelt just shows nothing."""
    families = Scrape.read(rig.scrape()).families
    there = {sample.name for family in families for sample in family.samples}
    there |= {family.name for family in families}
    for expression in [*queries(), *alerts().values()]:
        used = set(re.findall(r"\b(?:(?<!:)moorage|process|registry)_\w+", expression))
        assert used <= there | {"moorage_hit_bytes_ratio"}, expression


@pytest.mark.clients
def test_prometheus_finds_data_for_every_query(rig: Rig, tmp_path: Path) -> None:
    if PROMETHEUS is None:
        skip_client("prometheus", "not installed: prometheus")
    if shutil.which("skopeo") is None:
        skip_client("skopeo", "not installed")
    with run_prometheus(tmp_path / "prometheus", rig.debug_address) as prometheus:
        prometheus.wait_scraped("up")
        for name in ("cold", "warm", "once more"):
            before = sum(each.value for each in prometheus.query("moorage_http_requests_total"))
            pull(rig, tmp_path / name)
            ask(rig.mirror.address, f"/v2/{REPOSITORY}/manifests/missing")
            prometheus.wait_scraped("moorage_http_requests_total", before + 4)
        assert_every_query_has_data(prometheus)
        assert_rules_work(prometheus)


def assert_every_query_has_data(prometheus: Prometheus) -> None:
    found = {query: prometheus.query(query) for query in queries()}
    empty = [query for query, samples in found.items() if not samples]
    assert [query for query in empty if not MAY_BE_EMPTY.search(query)] == []
    hit_share = next(samples for query, samples in found.items() if "requests_total" in query)
    assert 0 < hit_share[0].value <= 1
    assert prometheus.query("moorage_upstream_ratelimit_remaining")[0].value == 76
    assert prometheus.query('sum(moorage_fills_total{outcome="done"})') == [Sample({}, 3.0)]
    assert prometheus.query('registry_proxy_hits_total{type="blob"}')[0].value >= 6


def assert_rules_work(prometheus: Prometheus) -> None:
    """Each is evaluated without an error, and none fires at a mirror that is well."""
    for expression in alerts().values():
        prometheus.query(expression)
    prometheus.wait_for(
        lambda: {health for health, _ in prometheus.rules().values()},
        lambda healths: "unknown" not in healths,
    )
    assert {name: how for name, how in prometheus.rules().items() if how != ("ok", "")} == {}
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
    assert prometheus.query("instance:moorage_hit_ratio:rate5m")
