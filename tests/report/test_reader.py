"""What a reader finds beside the numbers: what a trace answers, terms where they stand, downloads, links that land."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast import traces
from ssdfast.manifest import read_manifest, write_manifest
from ssdfast.problems.problem import Problem, write_problems
from ssdfast.report import write_report
from ssdfast.report.terms import SECTIONS, TERMS

from .. import tiny
from .reading import Reader, needed
from .synthetic import vocabulary, write_run

from selenium.webdriver.common.by import By  # isort: skip  # .reading skips where it is missing
from selenium.webdriver.support.ui import Select  # isort: skip

HOSTILE = "<img src=x onerror=window.hit=1> what is 2 + 2?"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A probe whose traces are there, graded, with problems; and with token classes of the user's."""
    root = tmp_path_factory.mktemp("reader")
    run = write_run(root / "run", problems=4, length=60)
    sources = []
    for label in ("baseline", "trained"):
        columns = {"problem_id": [f"problem-{i}" for i in range(4)], "correct": [True, False, None, label == "trained"]}
        table = tiny.trace_table(4, **columns)
        table = table.set_column(
            table.column_names.index("prompt_ids"), "prompt_ids", pa.array([[5, 6, 7]] * 4, pa.list_(pa.int32()))
        )
        traces.write_shard(root / label / "traces", 0, table)
        problems = [Problem(f"problem-{i}", f"{HOSTILE} ({i})", str(i), "own", "", {}) for i in range(4)]
        write_problems(root / label / "problems.jsonl", problems)
        sources.append({"name": label, "path": str(root / label / "traces")})
    for shard in (run / "positions").glob("*.parquet"):
        table = pq.read_table(shard)
        own = pa.array(["mine" if i % 3 == 0 else "other" for i in range(len(table))])
        pq.write_table(table.append_column("token_class", own), shard)
    summary = json.loads((run / "summary.json").read_text())
    summary["settings"]["traces"] = sources
    (run / "summary.json").write_text(json.dumps(summary))
    write_manifest(run, "a <b>device</b>", 0, [])
    write_report(run)
    return run


@pytest.fixture
def reader(browser, run):
    browser.set_window_size(1400, 1000)
    browser.get_log("browser")
    yield Reader(browser, run / "report.html")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hit") is None


def choose(reader, name, value):
    Select(reader.one(f"#{name}")).select_by_value(value)


@needed
def test_a_trace_says_what_it_answers_and_whether_it_is_right(reader):
    words = reader.one("#about").text
    assert f"{HOSTILE} (0)" in words
    assert re.search(r"Gold answer\s+0\s", words)
    assert "correct" in words
    reader.one("#about summary").click()
    assert reader.one("#about pre").text.strip() == "".join(vocabulary()[token] for token in (5, 6, 7)).strip()
    choose(reader, "label", "trained")
    reader.all("#list button")[1].click()
    reader.wait(lambda: "incorrect" in reader.one("#about").text)


@needed
def test_traces_are_filtered_by_grade_and_sorted_by_shift(reader):
    def shown():
        return [item.text.split("\n")[0] + item.text.split("\n")[1][:11] for item in reader.all("#list li")]

    choose(reader, "grade", "incorrect")
    assert len(shown()) == 3
    choose(reader, "grade", "ungraded")
    assert shown() == ["problem-2#0by baseline", "problem-2#0by trained "]
    choose(reader, "grade", "")
    for order, sign in (("down", -1), ("up", 1)):
        choose(reader, "order", order)
        kls = [float(re.search(r"KL ([\d.]+)", item.text)[1]) for item in reader.all("#list li")]
        assert kls == sorted(kls, key=lambda kl: sign * kl)
        assert len(set(kls)) > 1


@needed
def test_positions_are_filtered_by_own_token_classes(reader):
    choose(reader, "token-class", "0")
    assert reader.one("#token-class option:checked").text == "mine"
    plain = [int(node.get_attribute("data-position")) for node in reader.all("#flow .token:not(.other)")]
    assert plain == list(range(0, 60, 3))


@needed
@pytest.mark.parametrize("width", [390, 1280])
def test_a_link_to_a_trace_lands_there(browser, run, width):
    browser.set_window_size(max(width, 500), 900)
    reader = Reader(browser, run / "report.html", "#trace=problem-3%230&by=trained&position=41")
    with reader.emulated(width, "light"):
        browser.get("about:blank")
        reader = Reader(browser, run / "report.html", "#trace=problem-3%230&by=trained&position=41")
        top = "document.querySelector('.reader').getBoundingClientRect().top"
        reader.wait(lambda: abs(reader.script(top)) < 5)
        assert reader.position == 41
        where = reader.script("document.querySelector('#flow [aria-selected=true]').getBoundingClientRect().bottom")
        assert 0 < where < 900


@needed
def test_the_contents_lead_to_every_section(reader):
    links = reader.all(".contents a")
    assert [link.text for link in links] == [heading.text for heading in reader.all("h2")]
    trace = reader.trace
    links[2].click()
    assert abs(reader.script("document.getElementById('traces-title').getBoundingClientRect().top")) < 5
    assert reader.trace == trace


@needed
def test_figures_can_be_saved_as_csv_and_svg(reader, run):
    reader.browser.execute_script(
        "window.saved = []; URL.createObjectURL = (blob) => { blob.text().then((text) => saved.push(text));"
        " return '#'; }; HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };"
    )
    figures = reader.all("#panels figure")
    assert len(figures) == 6
    summary = json.loads((run / "summary.json").read_text())
    for button in figures[0].find_elements(By.CSS_SELECTOR, ".download"):
        button.click()
    reader.wait(lambda: reader.script("saved.length") == 4)
    saved = reader.script("saved")
    assert {"shift.csv", "shift.svg"} <= set(saved)
    (table,) = (text for text in saved if text.startswith("name,value"))
    row = table.split("\r\n")[1].split(",")
    assert float(row[1]) == pytest.approx(summary["all"]["kl_trained_base"]["value"])
    (drawing,) = (text for text in saved if text.startswith("<svg"))
    assert drawing.count("<circle") == 5
    assert 'xmlns="http://www.w3.org/2000/svg"' in drawing


@needed
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_with_all_of_it(reader, width, scheme):
    with reader.emulated(width, scheme):
        reader.assert_readable(width)


def test_every_term_is_defined_in_the_section_where_it_stands(run):
    page = (run / "report.html").read_text("utf-8")
    for section, names in SECTIONS.items():
        assert set(names) <= TERMS.keys(), section
    assert set(TERMS) == {name for names in SECTIONS.values() for name in names}
    sections = dict(re.findall(r'<section aria-labelledby="([\w-]+)"[^>]*>(.*?)</section>', page, re.DOTALL))
    for title, words in {
        "positions-title": ("Lock", "Fork", "Diffuse", "Mixed", "Nucleus"),
        "shift-title": ("Shift", "Entropy", "Nucleus", "Tail mass"),
        "traces-title": ("Rank", "JS", "Alignment", "Grade", "Cut"),
        "headline": ("Shift", "KL", "Nat"),
    }.items():
        defined = re.findall(r"<dt>(.*?)</dt>", sections[title])
        assert set(words) <= set(defined), title


def test_the_page_says_when_where_and_how(run):
    page = (run / "report.html").read_text("utf-8")
    manifest = read_manifest(run)
    block = re.search(r'<details class="terms" id="provenance">(.*?)</details>', page, re.DOTALL)[1]
    for words in (manifest.date, "torch " + manifest.versions["torch"], "a &lt;b&gt;device&lt;/b&gt;", "Command"):
        assert words in block


def test_traces_that_are_gone_leave_the_page_without_questions(run, tmp_path):
    again = write_run(tmp_path / "run", problems=1, length=20)
    summary = json.loads((again / "summary.json").read_text())
    summary["settings"]["traces"] = [{"name": "baseline", "path": str(tmp_path / "gone")}]
    (again / "summary.json").write_text(json.dumps(summary))
    page = write_report(again).read_text("utf-8")
    assert '"about":[]' in page.replace(" ", "")
