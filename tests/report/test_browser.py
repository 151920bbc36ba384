"""The page in a real browser, opened from disk: what a reader does, at the widths that readers have."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.report import write_report

from .reading import Reader, needed
from .synthetic import vocabulary, write_run
from .test_page import HOSTILE

from selenium.webdriver import ActionChains  # isort: skip  # .reading skips where it is missing
from selenium.webdriver.common.by import By  # isort: skip
from selenium.webdriver.common.keys import Keys  # isort: skip
from selenium.webdriver.support.ui import Select  # isort: skip

pytestmark = needed


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("browser") / "run", problems=4, length=90)
    write_report(run)
    return run


@pytest.fixture
def reader(browser, run_dir):
    browser.set_window_size(1400, 1000)
    browser.get_log("browser")
    yield Reader(browser, run_dir / "report.html")
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def first_trace(run_dir):
    """The rows of the trace that the page opens with."""
    table = pq.read_table(run_dir / "positions" / "shard-00000.parquet").to_pylist()
    return [row for row in table if row["trace_source"] == "baseline"]


def test_page_opens_on_the_first_trace(reader, first_trace):
    assert "of the shift" in reader.one("h1").text
    assert len(reader.all("#flow .token")) == len(first_trace)
    assert reader.trace.startswith("problem-0#0 by baseline")
    assert reader.one("#sample").text == "All 8 traces of the run."
    assert len(reader.all("#class-bar rect")) == 4
    assert len(reader.all(".panel")) == 6
    assert reader.script("performance.getEntriesByType('resource').length") == 0


def test_click_shows_both_models_candidates(reader, first_trace):
    position = max(range(len(first_trace)), key=lambda i: first_trace[i]["base_entropy"])
    reader.token(position).click()
    row, texts = first_trace[position], vocabulary()
    cells = [[cell.text for cell in line.find_elements(By.CSS_SELECTOR, ".candidate, .figure, .change")]
             for line in reader.all(".candidates tbody tr")]  # fmt: skip
    glyphs = str.maketrans(" \n\t", "·⏎⇥")
    shown = {text: (before, after) for text, before, after, _ in cells}
    for token, log_a, log_b in zip(
        row["base_top_ids"][:8], row["base_top_logprobs"], row["trained_logprobs_at_base_top"], strict=False
    ):
        before, after = shown[texts[token].translate(glyphs) or "∅"]
        assert float(before) == pytest.approx(2.718281828**log_a, abs=5.1e-5)
        assert float(after) == pytest.approx(2.718281828**log_b, abs=5.1e-5)
    assert float(cells[0][3].replace("−", "-")) == pytest.approx(float(cells[0][2]) - float(cells[0][1]), abs=1.1e-4)
    here = reader.one(".candidates .here .candidate").text
    assert here == (texts[row["token_id"]].translate(glyphs) or "∅")
    assert reader.one("#detail .class-name").text.endswith(row["position_class"])
    assert f"position={position}" in reader.browser.current_url
    numbers = reader.one(".numbers").text
    for words in ("KL", "JS", "alignment", "rank", "entropy", "nucleus size", "tail mass"):
        assert words in numbers


def test_cut_candidates_are_those_outside_the_training_support(reader, first_trace):
    position = max(range(len(first_trace)), key=lambda i: first_trace[i]["base_top_logprobs"][0])
    reader.token(position).click()
    assert first_trace[position]["base_top_logprobs"][0] > -0.05, "one token alone reaches the nucleus mass"
    rows = reader.all(".candidates tbody tr")
    assert len(rows) >= 3
    assert ["cut" in row.get_attribute("class").split() for row in rows] == [False] + [True] * (len(rows) - 1)


def test_candidates_are_shown_as_decoding_draws_them(reader, first_trace):
    """The kernel's own decoding distribution: support by its size, probabilities by p over their sum."""
    position = max(range(len(first_trace)), key=lambda i: first_trace[i]["base_entropy"])
    row = first_trace[position]
    reader.token(position).click()
    drawn = {
        line.find_element(By.CSS_SELECTOR, ".candidate").text: [
            one.text for one in line.find_elements(By.CSS_SELECTOR, ".decoded")
        ]
        for line in reader.all(".candidates tbody tr")
    }
    for side, other in ((0, "base"), (1, "trained")):
        size = row[f"{other}_support_size"]
        mass = sum(2.718281828**x for x in row[f"{other}_top_logprobs"][:size])
        for rank, (token, log) in enumerate(
            zip(row[f"{other}_top_ids"][:8], row[f"{other}_top_logprobs"], strict=False)
        ):
            shown = drawn[vocabulary()[token].translate(str.maketrans(" \n\t", "·⏎⇥")) or "∅"][side]
            if rank >= size:
                assert shown == "→ cut"
            else:
                assert float(shown.removeprefix("→ ")) == pytest.approx(2.718281828**log / mass, abs=2e-3)


def test_positions_can_be_filtered_by_class(reader, first_trace):
    Select(reader.one("#kind")).select_by_value("fork")
    forks = [i for i, row in enumerate(first_trace) if row["position_class"] == "fork"]
    plain = [int(node.get_attribute("data-position")) for node in reader.all("#flow .token:not(.other)")]
    assert plain == forks
    reader.one("#largest").click()
    assert reader.position == max(forks, key=lambda i: first_trace[i]["kl_trained_base"])
    Select(reader.one("#kind")).select_by_value("top1_changed")
    swaps = [i for i, row in enumerate(first_trace) if row["position_class"] == "lock" and row["top1_changed"]]
    assert len(reader.all("#flow .token:not(.other)")) == len(swaps)
    Select(reader.one("#kind")).select_by_value("")
    assert not reader.all("#flow .token.other")


def test_arrows_walk_the_tokens(reader):
    reader.token(5).click()
    reader.press(Keys.ARROW_RIGHT)
    assert reader.position == 6
    reader.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert reader.position == 4
    top = reader.token(4).location["y"]
    reader.press(Keys.ARROW_DOWN)
    below = reader.position
    assert reader.token(below).location["y"] > top
    assert below > 4
    reader.press(Keys.ARROW_UP)
    assert abs(reader.token(reader.position).location["y"] - top) < 4
    reader.press(Keys.END)
    assert reader.position == 89
    reader.press(Keys.ARROW_RIGHT, Keys.HOME)
    assert reader.position == 0


def test_letters_walk_the_traces(reader):
    reader.token(0).click()
    seen = [reader.trace]
    for key in "jnkp":
        before = reader.trace
        reader.press(key)
        reader.wait(lambda before=before: reader.trace != before)
        seen.append(reader.trace)
        reader.token(3).click()
    assert seen[0] == seen[4] != seen[1] == seen[3] != seen[2]


def test_jump_goes_from_the_largest_shift_down(reader, first_trace):
    order = sorted(range(len(first_trace)), key=lambda i: -first_trace[i]["kl_trained_base"])
    reader.one("#largest").click()
    assert reader.position == order[0]
    reader.press("m")
    assert reader.position == order[1]
    reader.token(order[5]).click()
    reader.press("m")
    assert reader.position == order[0]


def test_colours_toggle(reader, first_trace):
    position = max(range(len(first_trace)), key=lambda i: first_trace[i]["kl_trained_base"])
    colour = f"getComputedStyle(document.querySelector('#flow [data-position=\"{position}\"]')).backgroundColor"
    by_class = reader.script(colour)
    reader.all("#colours label")[1].click()
    reader.wait(lambda: reader.script(colour) != by_class)
    assert "KL in nats" in reader.one("#legend").text
    reader.all("#colours label")[0].click()
    reader.wait(lambda: reader.script(colour) == by_class)
    for name in ("lock", "fork", "diffuse", "mixed"):
        assert name in reader.one("#legend").text


def test_search_and_label_filter(reader, first_trace):
    def search(words: str) -> None:
        reader.one("#search").clear()
        reader.one("#search").send_keys(words)
        reader.wait(lambda: reader.one("#matches").text.endswith("traces"))

    Select(reader.one("#label")).select_by_value("trained")
    assert len(reader.all("#list li")) == 4
    search("PROBLEM-2")
    assert [item.text.split("\n")[0] for item in reader.all("#list li")] == ["problem-2#0"]
    reader.one("#list button").click()
    reader.wait(lambda: "problem-2#0 by trained" in reader.trace)
    Select(reader.one("#label")).select_by_value("")
    text = "".join(vocabulary()[row["token_id"]] for row in first_trace)
    words = max(text.split("\n"), key=len).strip()[:24]
    search(words.upper())
    assert reader.all("#list mark")[0].text == words.replace(" ", "·")
    assert reader.all("#list .trace-id")[0].text == "problem-0#0"
    search("nowhere in these traces")
    assert reader.one("#matches").text == "0 of 8 traces"


def test_figures_by_generator(reader):
    before = reader.one("#panels").text
    reader.all("#groups label")[2].click()
    assert reader.one("#panels").text != before
    assert len(reader.all(".panel .interval")) == 6 * 5


def test_address_names_the_token(browser, run_dir):
    reader = Reader(browser, run_dir / "report.html", "#trace=problem-3%230&by=trained&position=41")
    assert reader.position == 41
    assert reader.trace.startswith("problem-3#0 by trained")
    browser.execute_script("location.hash = 'trace=problem-1%230&by=baseline&position=7'")
    reader.wait(lambda: reader.trace.startswith("problem-1#0 by baseline") and reader.position == 7)


def test_hover_and_focus_tell_in_short(reader):
    ActionChains(reader.browser).move_to_element(reader.token(12)).perform()
    assert "position 12" in reader.one("#tip").text
    assert "KL" in reader.one("#tip").text
    reader.token(12).click()
    label = reader.token(12).get_attribute("aria-label")
    assert "position 12" in label
    assert reader.browser.switch_to.active_element == reader.token(12)


@pytest.mark.parametrize("width", [390, 800, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_horizontal_overflow_and_enough_contrast(reader, width, scheme):
    with reader.emulated(width, scheme):
        for colour in (0, 1):
            reader.all("#colours label")[colour].click()
            reader.assert_readable(width)


def test_hostile_text_is_inert(browser, tmp_path):
    texts = vocabulary()
    texts[: len(HOSTILE)] = HOSTILE
    run = write_run(tmp_path / "run", problems=1, length=60, texts=texts)
    part = run / "positions" / "shard-00000.parquet"
    table = pq.read_table(part)
    tokens = pa.array([*range(len(HOSTILE)), *table["token_id"].to_pylist()[len(HOSTILE) :]], pa.int32())
    pq.write_table(table.set_column(table.column_names.index("token_id"), "token_id", tokens), part)
    browser.get_log("browser")
    reader = Reader(browser, write_report(run))
    flow = reader.one("#flow").text
    assert reader.script("window.hit") is None
    assert reader.script("document.images.length + document.scripts.length") == 2
    for words in (
        "</script>",
        "⟨U+202E⟩gnp.exe⟨U+2066⟩",
        "⟨U+D800⟩",
        "⟨U+0000⟩",
        "more·characters]",
        "&lt;b&gt;",
        "{{script}}",
    ):
        assert words in flow.replace("\n", "")
    assert reader.script("document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_policy_refuses_scripts_and_requests(browser, run_dir, tmp_path):
    """The page with one script more: it does not run."""
    page = (run_dir / "report.html").read_text("utf-8").replace("</main>", "</main><script>window.hit = 1</script>")
    path = tmp_path / "page.html"
    path.write_text(page, "utf-8")
    reader = Reader(browser, path)
    assert reader.script("window.hit") is None
    log = browser.get_log("browser")
    assert len(log) == 1
    assert "Content Security Policy" in log[0]["message"]
