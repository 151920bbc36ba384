"""A person at a page in a real browser: what can be seen and done there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needed = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def opened(profile: Path):
    """A headless browser with a log of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    return driver


class Reader:
    """What a person can see and do on the page."""

    def __init__(self, browser, path: Path, fragment: str = "") -> None:
        self.browser = browser
        browser.get("about:blank")
        browser.get(path.as_uri() + fragment)
        self.wait(lambda: self.all("#detail table"))

    def wait(self, condition) -> None:
        WebDriverWait(self.browser, 10).until(lambda _: condition())

    def all(self, selector: str):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def script(self, code: str):
        return self.browser.execute_script(f"return {code}")

    def press(self, *keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(*keys)

    @property
    def position(self) -> int:
        return int(self.one("#flow [aria-selected=true]").get_attribute("data-position"))

    @property
    def trace(self) -> str:
        current = self.one("#list [aria-current=true]")
        return current.text.replace("\n", " ")

    def token(self, position: int):
        return self.one(f"#flow [data-position='{position}']")

    @contextmanager
    def emulated(self, width: int, scheme: str):
        """The page at a width in CSS pixels, in the light or the dark."""
        command = self.browser.execute_cdp_cmd
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        try:
            yield
        finally:
            command("Emulation.clearDeviceMetricsOverride", {})
            command("Emulation.setEmulatedMedia", {"features": []})

    def assert_readable(self, width: int) -> None:
        """Nothing is wider than the page, with all details open, and all text stands out."""
        self.browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert self.script("innerWidth") == width
        assert self.script("document.documentElement.scrollWidth") <= width
        assert self.browser.execute_script(LOW_CONTRAST) == []


# Texts whose contrast with the nearest opaque background behind them is below 4.5 to 1.
LOW_CONTRAST = """
document.querySelectorAll("*").forEach((node) => { node.style.transition = "none"; });
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => channels(colour).slice(0, 3)
  .map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const opaque = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if ((channels(colour)[3] ?? 1) === 1) return colour;
  }
  return "rgb(255, 255, 255)";
};
const found = new Set();
for (const node of document.querySelectorAll("body *:not(script):not(svg *):not(option)")) {
  if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
  if (!node.checkVisibility()) continue;
  const [ink, paper] = [getComputedStyle(node).color, opaque(node)];
  const [low, high] = [luminance(ink), luminance(paper)].sort((x, y) => x - y);
  if ((high + 0.05) / (low + 0.05) < 4.5) found.add(`${node.className || node.tagName} ${ink} on ${paper}`);
}
return [...found];
"""
