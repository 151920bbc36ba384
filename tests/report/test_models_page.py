"""The page of several trained models: what it says is what the probes found, and what a reader does with it."""

from __future__ import annotations

import json
import re

import pytest

import ssdfast as ssd
from ssdfast.number_format import format_interval
from tests import tiny

from .reading import Reader, needed
from .unpacking import columns_of

from selenium.webdriver.common.by import By  # isort: skip  # .reading skips where it is missing
from selenium.webdriver.support.ui import Select  # isort: skip

STEPS = {"checkpoint-5": 0.01, "checkpoint-10": 0.02, "checkpoint-20": 0.05}
HOSTILE = "</script><script>window.hit=1</script>"


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    """Three checkpoints of one training and another model, at hostile tokens."""
    directory = tmp_path_factory.mktemp("models")
    words = [*tiny.WORDS[:-1], HOSTILE]
    baseline = tiny.save_model(directory / "baseline", words=words)
    trained = {
        name: tiny.save_model(directory / "x" / "train" / "checkpoints" / name, moved=moved, words=words)
        for name, moved in STEPS.items()
    }
    trained["other"] = tiny.save_model(directory / "other", moved=0.03, words=words)
    traces = tiny.save_traces(directory / "traces", 16, seed=5)
    return ssd.probe(baseline=baseline, trained=trained, traces={"own": traces}, out=directory / "out")


@pytest.fixture(scope="module")
def data(probes):
    text = (probes.directory / "report.html").read_text("utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_every_model_is_in_the_table_and_the_figures(probes, data):
    assert [row[0] for row in data["models"]["rows"]] == [*STEPS, "other"] == probes.models
    for row in data["models"]["rows"]:
        assert row[1] == format_interval(probes[row[0]].summary().all.kl_trained_base)
    assert [group["name"] for group in data["groups"]] == probes.models


def test_the_trajectory_is_that_of_the_frame(probes, data):
    frame = probes.trajectory()
    components, classes, strength = data["trajectory"]["charts"]
    drawn = {(line["name"], x): y for line in components["series"] for x, y, _, _ in line["points"]}
    for row in frame.to_dict("records"):
        title = {"ssd": "self-distillation", "eos_bias": "EOS bias"}.get(row["component"], row["component"])
        assert drawn[title, row["step"]] == row["nats"]
    assert {line["name"] for line in classes["series"]} <= {"lock", "fork", "diffuse", "mixed"}
    assert [x for x, *_ in strength["series"][0]["points"]] == [5, 10, 20]
    assert [row[1] for row in data["trajectory"]["changes"]["rows"]] == ["0 to 5", "5 to 10", "10 to 20"]


def test_the_columns_of_the_baseline_are_there_once(probes, data):
    assert len(data["traces"]) == 4 * len(data["shared"]) == 64
    for trace in data["traces"][:8]:
        columns = columns_of(data, trace)
        rows = probes[trace["label"]].positions(["kl_trained_base", "base_entropy"], trace["id"])
        assert columns["kl"] == pytest.approx(rows["kl_trained_base"].tolist(), rel=0.012, abs=6e-4)
        assert columns["base"]["entropy"] == pytest.approx(rows["base_entropy"].tolist(), rel=0.012, abs=6e-4)
        first = probes[trace["label"]].trace(trace["id"]).candidates(0)
        shown = [data["tokens"]["texts"][i].strip() for i in columns["candidates"]["token"][: columns["count"][0]]]
        assert shown[:3] == [text.strip() for text in first["text"][:3]]
        after = columns["candidates"]["trained"][:3]
        assert after == pytest.approx(first["trained"][:3].tolist(), rel=0.012, abs=6e-5)


@needed
def test_a_reader_compares_models_at_one_token(browser, probes):
    browser.set_window_size(1400, 1000)
    browser.get_log("browser")
    reader = Reader(browser, probes.directory / "report.html")
    assert "the shift is from" in reader.one("h1").text
    assert len(reader.all("#trajectory figure")) == 3
    assert len(reader.all("#trajectory figure:first-child path.line")) == 4
    assert len(reader.all("#models tbody tr")) == 4
    before = [cell.text for cell in reader.all("#panels .value")]
    reader.all("#groups input")[1].find_element(By.XPATH, "..").click()
    assert [cell.text for cell in reader.all("#panels .value")] != before
    reader.token(2).click()
    position = reader.position
    Select(reader.one("#label")).select_by_visible_text("other")
    reader.wait(lambda: "other" in reader.trace)
    assert reader.position == position
    assert reader.script("window.hit") is None
    assert reader.script("performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
