"""Debian's Chromium without a screen, driven by selenium.

Invariant: nothing is downloaded: browser and driver are those of the machine, and each browser has
a profile of its own that goes with it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_PATIENCE_S = 30.0

# Elements whose own text has too little contrast with what is behind it (WCAG 2.1, 1.4.3).
_CONTRASTS = """
const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const luminance = (color) => color.slice(0, 3).map((v) => linear(v / 255))
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (node) => {
  for (let n = node; n; n = n.parentElement) {
    const color = parse(getComputedStyle(n).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const ownText = (node) => [...node.childNodes].filter((n) => n.nodeType === 3)
  .map((n) => n.textContent.trim()).join("");
const poor = [];
for (const node of document.querySelectorAll("body *:not(script, style)")) {
  const style = getComputedStyle(node), size = parseFloat(style.fontSize);
  if (!ownText(node) || !node.checkVisibility()) continue;
  const pair = [luminance(parse(style.color)), luminance(behind(node))].sort((x, y) => y - x);
  const contrast = (pair[0] + .05) / (pair[1] + .05);
  const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  if (contrast < (isLarge ? 3 : 4.5)) poor.push(`${node.tagName} ${ownText(node)} ${contrast}`);
}
return poor;
"""
_UNLABELLED = """
return [...document.querySelectorAll("input, select, textarea")].filter((n) => !n.labels.length)
  .concat([...document.querySelectorAll("button, [role=img], progress")]
    .filter((n) => !(n.textContent.trim() || n.getAttribute("aria-label"))))
  .map((n) => n.outerHTML);
"""


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look_like(self, *, scheme: str = "light", width: int = 1280, height: int = 900) -> None:
        """Prefer a colour scheme, and have a window of so many pixels."""
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def find(self, selector: str) -> WebElement:
        """Get the element that a CSS selector means."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """Count the elements that a CSS selector means."""
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def wait_text(self, selector: str, part: str) -> str:
        """Wait until an element's text has `part` in it; return the text."""
        wait = WebDriverWait(self.driver, _PATIENCE_S, poll_frequency=0.1)
        wait.until(lambda _: part in self.find(selector).text, f"no {part!r} in {selector}")
        return self.find(selector).text

    @property
    def focused(self) -> WebElement:
        """What the keyboard acts on."""
        return self.driver.switch_to.active_element

    def list_poor_contrasts(self) -> list[str]:
        """Elements whose text can hardly be read."""
        return [str(each) for each in self.driver.execute_script(_CONTRASTS)]

    def list_unlabelled(self) -> list[str]:
        """Controls and drawings that a screen reader has no name for."""
        return [str(each) for each in self.driver.execute_script(_UNLABELLED)]

    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        script = "return document.documentElement.scrollWidth > innerWidth"
        return bool(self.driver.execute_script(script))

    def take_messages(self) -> list[str]:
        """What the console has said since the last call."""
        return [str(each["message"]) for each in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]  # selenium's


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Run a browser while the block lasts."""
    assert BROWSER is not None
    assert DRIVER is not None
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # As root, and in containers with a small /dev/shm, Chromium runs only like this.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
