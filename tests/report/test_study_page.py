"""The page of a study: what it says is what the study found, and what a reader does with it."""

from __future__ import annotations

import json
import re

import pytest

from ssdfast.workflows.study.runner import read_study
from tests.as_json import study

from ..workflows.study.small import WORDS, file_of, write_inputs
from .reading import Reader, needed

from selenium.webdriver.common.by import By  # isort: skip  # .reading skips where it is missing
from selenium.webdriver.support.ui import Select  # isort: skip

pytest.importorskip("math_verify")
pytest.importorskip("matplotlib")
HOSTILE = "<img src=x onerror=window.hit=1>"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A study of three arms whose tokens and difficulties are hostile; two temperatures of evaluation."""
    inputs = write_inputs(tmp_path_factory.mktemp("study"), [*WORDS, "</script><script>window.hit=1</script>"], HOSTILE)
    changes = {
        "arms": ["ssd", "ssd-soft", "control"],
        "sweep": {"temperature": [0.7, 1.2]},
        "seeds": [0, 1],
        "samples_per_problem": 2,
    }
    study(read_study(file_of(inputs, **changes)), inputs / "out")
    return inputs / "out"


@pytest.fixture(scope="module")
def data(directory):
    text = (directory / "report.html").read_text("utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_tells_what_was_found(directory, data):
    results, found = (json.loads((directory / name).read_text()) for name in ("results.json", "attribution.json"))
    page = data["study"]
    assert [arm["name"] for arm in page["arms"]] == ["ssd", "ssd-soft", "control"]
    assert {arm["name"]: arm["verdict"] and arm["verdict"]["text"] for arm in page["arms"]} == {
        name: arm["verdict"]["text"] if "verdict" in arm else None for name, arm in found["arms"].items()
    }
    drawn = {(one["name"], x): y for one in page["accuracy"]["chart"]["series"] for x, y, _, _ in one["points"]}
    assert drawn == {(run["checkpoint"], run["temperature"]): 100 * run["accuracy"]["value"] for run in results["runs"]}
    assert len(page["comparisons"]["rows"]) == len(results["comparisons"]) == 12
    assert len(page["diagnostics"]["rows"]) == 14
    beyond = {row["name"]: row["value"] for row in page["attribution"]["ssd"]["beyond"]}
    components = found["arms"]["ssd"]["vs_control"]["components"]
    assert beyond["self-distillation"] == components["ssd"]["value"]
    assert beyond["residual"] == components["residual"]["value"]
    everything = next(one for one in found["arms"]["ssd"]["by_group"] if one["group_kind"] == "all")
    first_row = page["attribution"]["ssd"]["groups"]["ssd_variance_fraction"]["groups"][0]["rows"][0]
    assert first_row["value"] == everything["ssd_variance_fraction"]["value"]
    assert [len(chart["series"]) for chart in page["decoding"]["ssd"]] == [2, 2, 2, 2]
    losses = next(one for one in page["training"] if one["title"] == "Loss")["series"]
    assert [one["name"] for one in losses] == [f"{a}-{s}" for a in ("ssd", "ssd-soft", "control") for s in (0, 1)]
    assert "onerror" in page["filters"]["shapes"]["ssd"][1]["rows"][0]["name"]


def test_every_trace_is_there_under_every_arm(data):
    labels = {}
    for trace in data["traces"]:
        labels.setdefault(trace["id"], []).append(trace["label"])
    assert set(map(tuple, labels.values())) == {("ssd-0", "ssd-soft-0", "control-0")}
    assert len(labels) == 16


@pytest.fixture
def reader(browser, directory):
    browser.set_window_size(1400, 1000)
    browser.get_log("browser")
    yield Reader(browser, directory / "report.html")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hit") is None


@needed
def test_an_arm_is_chosen_for_all_figures(reader):
    before = {name: reader.one(f"#{name}").text for name in ("shift", "tests", "decoding-legend", "shapes")}
    reader.all("#arm label")[2].click()
    after = {name: reader.one(f"#{name}").text for name in before}
    assert after["shift"] != before["shift"]
    assert after["tests"] == "control is the control."
    assert "control" in after["decoding-legend"]
    Select(reader.one("#metric")).select_by_value("kl_trained_base")
    assert "shift: KL(trained ‖ baseline), nats" in reader.one("#groups").text
    assert len(reader.all("#verdicts article")) == 2
    assert len(reader.all("#training .chart")) == 4
    assert len(reader.all("#decoding .chart")) == 4
    assert reader.script("performance.getEntriesByType('resource').length") == 0


@needed
def test_the_same_token_under_another_model(reader):
    reader.token(2).click()
    trace = reader.trace
    first = reader.one("#detail").text
    reader.press("o")
    reader.wait(lambda: "ssd-soft-0" in reader.trace)
    assert reader.position == 2
    assert reader.trace.replace("ssd-soft-0", "ssd-0").split(" · KL")[0] == trace.split(" · KL")[0]
    assert reader.one("#detail").text != first
    Select(reader.one("#label")).select_by_value("control-0")
    reader.wait(lambda: "control-0" in reader.trace)
    assert reader.position == 2
    assert reader.one("#matches").text == "16 of 48 traces"


@needed
@pytest.mark.parametrize("width", [390, 800, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_at_every_width(reader, width, scheme):
    with reader.emulated(width, scheme):
        reader.assert_readable(width)
        for name in ("verdicts", "arms", "shift", "training"):
            assert reader.one(f"#{name}").find_elements(By.XPATH, "./*")[0].rect["width"] > 280
