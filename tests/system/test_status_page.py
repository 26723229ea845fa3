"""The status page in a real browser: what it shows, by keyboard, in the dark, on a telephone."""

import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.fakes.browser import BROWSER, DRIVER, Browser, open_browser
from tests.fakes.mirror import Mirror, Site, site_of
from tests.fakes.upstream import Fault, ThreadedUpstream
from tests.fakes.upstream_content import make_bytes
from tests.system.conftest import skip_client
from tests.system.wire import Response, connect, request

pytestmark = pytest.mark.system

HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BROWSER is None or DRIVER is None:
        skip_client("chromium", "not installed: chromium, chromium-driver")
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def upstream() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as upstream:
        content = upstream.upstream.content
        content.add_image("library/busybox", "1.35", (make_bytes(300_000),))
        denied = Fault(status=403, code="DENIED", message=HOSTILE)
        upstream.upstream.fail(denied, kind="manifest", repository="library/secret", times=None)
        yield upstream


def get(mirror: Mirror, target: str) -> Response:
    with connect(mirror.address) as wire:
        wire.send(request(target))
        return wire.receive()


def site_with_debug(directory: Path, upstream: ThreadedUpstream, **debug: object) -> Site:
    site = site_of(directory, upstream.upstream.url, namespaces=["docker.io"])
    site.config["http"] = {"addr": "127.0.0.1:0", "debug": {"addr": "127.0.0.1:0", **debug}}
    return site


@contextmanager
def started(site: Site) -> Iterator[tuple[Mirror, str]]:
    """Run a mirror; give the URL of its debug port."""
    with site.start() as mirror:
        address = mirror.child.wait_for(r"debug port open addr=(\S+)")[1]
        yield mirror, f"http://{address.replace('[::]', '127.0.0.1')}"


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, upstream: ThreadedUpstream
) -> Iterator[tuple[Mirror, str]]:
    """A mirror that has served something, and failed at something."""
    site = site_with_debug(tmp_path_factory.mktemp("mirror"), upstream)
    with started(site) as (mirror, url):
        manifest = json.loads(get(mirror, "/v2/library/busybox/manifests/1.35").body)
        for layer in manifest["layers"]:
            get(mirror, f"/v2/library/busybox/blobs/{layer['digest']}")
        assert get(mirror, "/v2/library/secret/manifests/1").status == 403
        yield mirror, url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_it_can_be_read_on_every_screen(
    browser: Browser, page: tuple[Mirror, str], scheme: str, width: int
) -> None:
    browser.look_like(scheme=scheme, width=width)
    browser.driver.get(page[1])
    assert browser.wait_text("#state", "ready") == "ready"
    assert "docker.io/library/busybox" in browser.wait_text("#pulled", "busybox")
    assert not browser.overflows()
    assert browser.list_poor_contrasts() == []
    assert browser.take_messages() == []


def test_it_has_landmarks_headings_and_names_for_all_controls(
    browser: Browser, page: tuple[Mirror, str]
) -> None:
    browser.look_like()
    browser.driver.get(page[1])
    browser.wait_text("#state", "ready")
    assert browser.list_unlabelled() == []
    for landmark in ("header", "main", "footer", "[role=search]", "html[lang]"):
        assert browser.count(landmark) == 1, landmark
    script = "return [...document.querySelectorAll('h1,h2,h3')].map((n) => n.tagName)"
    headings = browser.driver.execute_script(script)
    assert headings[0] == "H1"
    assert set(headings[1:]) == {"H2"}
    ids = "return [...document.querySelectorAll('[id]')].map((n) => n.id)"
    found = browser.driver.execute_script(ids)
    assert len(found) == len(set(found))


def test_it_answers_what_something_is_by_keyboard_alone(
    browser: Browser, page: tuple[Mirror, str]
) -> None:
    browser.look_like()
    browser.driver.get(page[1])
    browser.wait_text("#state", "ready")
    browser.find("body").send_keys(Keys.TAB)
    assert browser.focused.text == "Skip to the facts"
    browser.focused.send_keys(Keys.TAB)
    assert browser.focused.get_attribute("id") == "query"
    browser.focused.send_keys("library/busybox:1.35", Keys.ENTER)
    browser.wait_text("#answer-body", "docker.io/library/busybox:1.35")
    assert browser.focused.get_attribute("id") == "answer-title"
    browser.focused.send_keys(Keys.TAB)
    browser.focused.send_keys(Keys.ENTER)
    assert not browser.find("#answer").is_displayed()
    assert browser.focused.get_attribute("id") == "query"


def test_text_from_outside_stays_text(browser: Browser, page: tuple[Mirror, str]) -> None:
    browser.look_like()
    browser.driver.get(page[1])
    assert "<script>alert(1)</script>" in browser.wait_text("#errors", "secret")
    browser.find("#query").clear()
    browser.find("#query").send_keys(HOSTILE, Keys.ENTER)
    browser.wait_text("#answer-body", "is not a repository")
    assert browser.count("img") == 0
    assert browser.count("script") == 1
    assert browser.driver.title == "Moorage"


def test_it_goes_on_by_itself_after_a_restart(
    browser: Browser, upstream: ThreadedUpstream, tmp_path: Path
) -> None:
    browser.look_like()
    site = site_with_debug(tmp_path, upstream)
    with started(site) as (mirror, url):
        browser.driver.get(url)
        browser.wait_text("#state", "ready")
        mirror.drain()
        browser.wait_text("#banner", "Not reachable since")
        assert "unreachable" in browser.driver.title
    site.config["http"] = {"addr": "127.0.0.1:0", "debug": {"addr": url.removeprefix("http://")}}
    with started(site):
        browser.wait_text("#state", "ready")
        assert not browser.find("#banner").is_displayed()


def test_an_exposed_port_asks_for_the_token_and_then_shows_the_facts(
    browser: Browser, upstream: ThreadedUpstream, tmp_path: Path
) -> None:
    browser.look_like()
    with started(site_with_debug(tmp_path, upstream, addr=":0", token=TOKEN)) as (_, url):
        browser.driver.get(url)
        browser.wait_text("#login-why", "token is needed")
        assert not browser.find("#fills").is_displayed()  # nobody knows yet
        browser.find("#token").send_keys("wrong", Keys.ENTER)
        browser.wait_text("#login-why", "not the operator's token")
        browser.find("#token").send_keys(TOKEN, Keys.ENTER)
        browser.wait_text("#state", "ready")
        assert not browser.find("#login").is_displayed()
        browser.driver.execute_script("sessionStorage.clear()")


def test_recipes_name_this_mirror_and_are_well_formed(
    browser: Browser, page: tuple[Mirror, str]
) -> None:
    browser.look_like()
    mirror, url = page
    browser.driver.get(url)
    browser.wait_text("#recipe", mirror.address)
    select = Select(browser.find("#client"))
    parsers: dict[str, Callable[[str], object]] = {"json": json.loads, "yaml": yaml.safe_load}
    for option in [each.text for each in select.options]:
        select.select_by_visible_text(option)
        path = browser.wait_text("#recipe code", "")
        text = browser.find("#recipe pre").text
        assert mirror.address in text
        parsers.get(path.rpartition(".")[2], tomllib.loads)(text)
    browser.find("#address").clear()
    browser.find("#address").send_keys("mirror.example:80")
    assert "mirror.example:80" in browser.wait_text("#recipe", "mirror.example:80")
