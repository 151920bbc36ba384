"""How fast a report of 200 traces of 2,000 tokens opens and scrolls in Chromium: ``python bench/report_page.py``.

It measures the page of a probe and, for claims_study.py, the page of a study.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import ROOT
from selenium import webdriver
from selenium.webdriver.common.by import By

from ssdfast.config import StudyExecution
from ssdfast.report import write_report
from ssdfast.report.study_page import write_study
from ssdfast.workflows.study.runner import finished_study, make_stages, read_study
from tests.report.synthetic import write_run

HOME = ROOT / "runs" / "bench-report"
PROBLEMS, TOKENS = 100, 2000
"""two traces per problem"""
OPENINGS = 5
_FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
# Long tasks are those of more than 50 ms, by the browser's own count.
_WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((task) => window.longTasks.push(task.duration)))
  .observe({ type: "longtask", buffered: true });
"""
# Scrolls the page and then the tokens of the trace from top to bottom, one step per frame.
_SCROLL = """
const done = arguments[arguments.length - 1], flow = document.getElementById("flow");
let step = 0;
const frame = () => {
  window.scrollTo(0, document.body.scrollHeight * Math.min(1, step / 60));
  flow.scrollTop = flow.scrollHeight * Math.max(0, step - 60) / 60;
  step++ < 120 ? requestAnimationFrame(frame) : setTimeout(done, 100);
};
requestAnimationFrame(frame);
"""


@dataclass(frozen=True)
class Page:
    """The size and timings of a page.

    traces: the number in its list. seconds: the median time until the first trace can be read. opening, scrolling,
    reading: the longest task in ms of opening the page, of scrolling, and of showing traces and searching in them.
    """

    megabytes: float
    traces: int
    seconds: float
    opening: float
    scrolling: float
    reading: float


def probe_page() -> Path:
    """The page of a probe of 200 traces."""
    if not (HOME / "probe").exists():
        with tempfile.TemporaryDirectory(dir=_home()) as directory:
            shutil.move(write_run(Path(directory) / "probe", PROBLEMS, TOKENS), HOME / "probe")
    return write_report(HOME / "probe")


def study_page(file: str, study: Path) -> Path:
    """The page of a study that has run, with the traces of `probe_page` for each arm."""
    probe_page()
    config = read_study(file)
    page = finished_study(make_stages(config, study, StudyExecution()), study)
    return write_study(
        HOME / "study.html",
        replace(page, trainings=[replace(training, probe=HOME / "probe") for training in page.trainings]),
    )


def measured(path: Path) -> Page:
    """Opens the page OPENINGS times, then scrolls and reads the last one. Needs Chromium and its driver."""
    browser = _browser()
    try:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
        seconds, opening = [], []
        for _ in range(OPENINGS):
            browser.get("about:blank")
            start = time.perf_counter()
            browser.get(path.as_uri())
            while not browser.find_elements(By.CSS_SELECTOR, "#detail table"):
                time.sleep(0.005)
            seconds.append(time.perf_counter() - start)
            opening.append(_longest(browser))
        traces = len(browser.find_elements(By.CSS_SELECTOR, "#list li"))
        browser.execute_async_script(_SCROLL)
        scrolling = _longest(browser)
        for _ in range(5):
            browser.find_element(By.ID, "next").click()
            time.sleep(0.3)
        browser.find_element(By.ID, "search").send_keys("wait")
        while "traces" not in browser.find_element(By.ID, "matches").text.split()[-1]:
            time.sleep(0.05)
        return Page(
            path.stat().st_size / 1e6, traces, statistics.median(seconds), max(opening), scrolling, _longest(browser)
        )
    finally:
        browser.quit()


def _longest(browser: Any) -> float:
    """The longest task since the last call in ms, or 0 if none took 50 ms."""
    time.sleep(0.2)
    durations: list[float] = browser.execute_script("return window.longTasks.splice(0)")
    return max(durations, default=0.0)


def _browser() -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in _FLAGS.split():
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.set_window_size(1400, 1000)
    return browser


def _home() -> Path:
    HOME.mkdir(parents=True, exist_ok=True)
    return HOME


if __name__ == "__main__":
    print(measured(probe_page()))
