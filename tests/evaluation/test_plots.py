"""Figures are the same bytes for the same results, refer to nothing outside, and show what the settings let through."""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree

import pytest

from ssdfast.config import EvalConfig
from ssdfast.evaluation import plots
from ssdfast.evaluation.plots import COLOURS, draw
from ssdfast.schemas import EvaluationResults, Interval, LengthSummary, RunResults
from ssdfast.schemas.evaluation import DiagnosticRates, Lengths

SVG = "{http://www.w3.org/2000/svg}"


def run(label="a", temperature=0.7, value=0.5, unit="tokens", **truncation):
    quantiles = LengthSummary.model_construct(p5=1.0, p25=100.0, p50=200.0 + 100 * value, p75=400.0, p95=900.0)
    diagnostics = DiagnosticRates.model_construct(
        answer_rate=Interval(value=0.8, ci_low=0.7, ci_high=0.9),
        length=Lengths.model_construct(unit=unit, all=quantiles),
    )
    accuracy = Interval(value=value, ci_low=value - 0.1, ci_high=value + 0.05)
    known = {"top_k": 20, "top_p": 0.95, "min_p": 0.0} | truncation
    return RunResults.model_construct(
        checkpoint=label, temperature=temperature, accuracy=accuracy, diagnostics=diagnostics, **known
    )


def with_ends(given, low, high):
    """The run with these ends of both intervals."""
    ends = {"ci_low": low, "ci_high": high}
    rates = given.diagnostics.model_copy(update={"answer_rate": given.diagnostics.answer_rate.model_copy(update=ends)})
    return given.model_copy(update={"accuracy": given.accuracy.model_copy(update=ends), "diagnostics": rates})


def drawn(directory, *runs):
    return {path.stem: path for path in draw(EvaluationResults.model_construct(runs=list(runs)), directory)}


def texts(path):
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter(f"{SVG}text")]


def curves(path):
    """Of the vertices of each line of data, by its colour."""
    found: dict[str, list] = {}
    for group in ElementTree.parse(path).iter(f"{SVG}g"):
        if group.get("id", "").startswith("line2d") and (place := group.find(f"{SVG}path")) is not None:
            style = place.get("style", "")
            colour = next((one for one in COLOURS if f"stroke: {one}" in style), None)
            if colour and "stroke-width: 1.4" in style:
                found.setdefault(colour, []).append(re.findall(r"[ML] ([\d.]+) ([\d.]+)", place.get("d", "")))
    return found


SWEEP = [run(label, t, 0.3 + 0.2 * t) for label in ("base", "new") for t in (1.2, 0.6, 0.9)]


def test_a_figure_each_of_accuracy_answers_and_lengths(tmp_path):
    found = drawn(tmp_path / "eval", *SWEEP)
    assert list(found) == ["accuracy", "answer_rate", "length"]
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"accuracy.svg", "answer_rate.svg", "length.svg"}
    for name, label in (
        ("accuracy", "accuracy, %"),
        ("answer_rate", "completions with an answer, %"),
        ("length", "length, tokens: median and quartiles"),
    ):
        assert {label, "temperature of evaluation", "base", "new", "0.6", "0.9", "1.2"} <= set(texts(found[name]))


def test_the_same_results_make_the_same_bytes(tmp_path):
    first, second = drawn(tmp_path / "1", *SWEEP), drawn(tmp_path / "2", *copy.deepcopy(SWEEP))
    for name in first:
        assert first[name].read_bytes() == second[name].read_bytes(), name
    other = drawn(tmp_path / "3", *SWEEP[:-1], run("new", 0.9, 0.99))
    assert other["accuracy"].read_bytes() != first["accuracy"].read_bytes()


@pytest.mark.parametrize("name", ["accuracy", "answer_rate", "length"])
def test_each_figure_shows_its_own_values(tmp_path, name):
    first, *others = SWEEP
    interval = Interval(value=0.75, ci_low=0.6, ci_high=0.8)
    if name == "accuracy":
        first = first.model_copy(update={"accuracy": interval})
    else:
        lengths = first.diagnostics.length
        longer = lengths.model_copy(update={"all": lengths.all.model_copy(update={"p50": 300.0})})
        rates = {"length": longer} if name == "length" else {"answer_rate": interval}
        first = first.model_copy(update={"diagnostics": first.diagnostics.model_copy(update=rates)})
    before, changed = drawn(tmp_path / "before", *SWEEP), [first, *others]
    after = drawn(tmp_path / "after", *changed)
    assert [one for one in before if before[one].read_bytes() != after[one].read_bytes()] == [name]


def test_the_callers_own_drawing_is_left_as_it_was(tmp_path):
    import matplotlib
    from matplotlib import pyplot

    found = matplotlib.get_backend()
    with matplotlib.rc_context({"svg.hashsalt": None, "font.size": 17}):
        matplotlib.use("svg")
        try:
            drawn(tmp_path, *SWEEP)
            assert (matplotlib.get_backend(), matplotlib.rcParams["font.size"]) == ("svg", 17)
            assert pyplot.get_fignums() == []
        finally:
            matplotlib.use(found)


def test_nothing_outside_the_file_is_referred_to(tmp_path):
    for path in drawn(tmp_path, *SWEEP).values():
        for element in ElementTree.parse(path).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "image", "foreignObject")
            for name, value in element.attrib.items():
                assert not name.startswith("on")
                if name.rpartition("}")[2] in ("href", "src"):
                    assert value.startswith("#")
        assert "url(http" not in path.read_text()
        assert "@import" not in path.read_text()


def test_a_line_a_checkpoint_by_rising_temperature_in_the_order_of_the_runs(tmp_path):
    found = curves(drawn(tmp_path, *SWEEP, run("base", 1.5, 0.9))["accuracy"])
    assert set(found) == set(COLOURS[:2])
    base, new = (max(found[colour], key=len) for colour in COLOURS[:2])
    assert (len(base), len(new)) == (4, 3)
    across = [float(x) for x, _ in base]
    assert across == sorted(across)
    assert [float(y) for _, y in base] == sorted((float(y) for _, y in base), reverse=True)  # down is more


def test_bars_reach_from_the_estimate_to_the_ends_of_its_interval():
    assert plots._percent(Interval(value=0.5, ci_low=0.25, ci_high=0.625)) == (50, 25, 12.5)
    assert plots._percent(Interval(value=0.5, ci_low=None, ci_high=None)) == (50, 0, 0)
    assert plots._quartiles(LengthSummary.model_construct(p25=100.0, p50=250.0, p75=300.0)) == (250, 150, 50)


def test_lines_are_named_by_the_truncation_that_differs(tmp_path):
    runs = [run("a", t, top_k=k) for t in (0.6, 1.2) for k in (20, 0)] + [run("b", t, top_k=None) for t in (0.6, 1.2)]
    found = texts(drawn(tmp_path, *runs)["accuracy"])
    assert {"a, top-k 20", "a, top-k 0", "b"} <= set(found)
    assert not any("top-p" in text or "min-p" in text for text in found)


def test_runs_at_no_known_temperature_stand_side_by_side(tmp_path):
    found = drawn(tmp_path, run("base", None), run("new", None), run("third", 0.7), run("fourth", 0.7, unit="words"))
    assert texts(found["accuracy"])[:4] == ["base", "new", "third", "fourth"]
    assert "temperature of evaluation" not in texts(found["accuracy"])
    assert "length, tokens/words: median and quartiles" in texts(found["length"])


def test_a_run_at_no_known_temperature_is_a_level_beside_a_sweep(tmp_path):
    found = texts(drawn(tmp_path, run("base", 0.7), run("base", 1.2), run("theirs", None))["accuracy"])
    assert "temperature of evaluation" in found
    assert "theirs" in found


def test_one_temperature_is_no_sweep_and_one_run_is_enough(tmp_path):
    for runs in ([run("base"), run("new")], [run("only")]):
        assert "temperature of evaluation" not in texts(drawn(tmp_path, *runs)["accuracy"])


def test_a_run_without_an_interval_is_drawn(tmp_path):
    only = with_ends(run("base"), None, None)
    assert "base" in texts(drawn(tmp_path, only)["accuracy"])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_fractions_at_either_end_are_drawn(tmp_path, value):
    only = run("base", value=value)
    ends = {"ci_low": max(value - 0.1, 0.0), "ci_high": min(value + 0.1, 1.0)}
    only = only.model_copy(update={"accuracy": only.accuracy.model_copy(update=ends)})
    assert len(drawn(tmp_path, only)) == 3


@pytest.mark.parametrize("swept", [False, True])
def test_of_fourteen_checkpoints_none_looks_like_another(tmp_path, swept):
    labels = [f"run{n}" for n in range(14)]
    runs = [run(label, t) for label in labels for t in ((0.6, 1.2) if swept else (None,))]
    path = drawn(tmp_path, *runs)["accuracy"]
    assert set(labels) <= set(texts(path))
    marks = set()
    for use in ElementTree.parse(path).iter(f"{SVG}use"):
        if colour := re.search("fill: (#[0-9a-f]{6})", use.get("style", "")):
            marks.add((colour[1], use.get("{http://www.w3.org/1999/xlink}href")))
    assert len({mark for mark in marks if mark[0] in COLOURS}) >= 14


# What the settings let through


def config(**values):
    return EvalConfig(**({"models": ("base=m1", "new=m2")} | values))


@pytest.mark.parametrize("label", ["a/b", "../x", "..", ".a", "-a", " ", "a b", "a\n", "é", "<b>", "a$x$", '"', "a&b"])
def test_a_name_that_names_no_directory_is_refused(label):
    path = {"name": label, "path": "m"}
    for settings in ({"models": (path,)}, {"models": (), "completions": (path,)}, {"completions": (path,)}):
        with pytest.raises(ValueError, match=re.escape(f"the name {label!r} must be able to name a directory")):
            config(**settings).check()


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match="at least 1 character"):
        config(models=({"name": "", "path": "m"},))
    with pytest.raises(ValueError, match="must be NAME=PATH"):
        config(models=("=m",))


@pytest.mark.parametrize("label", ["a", "step-100", "T1.1", "lr1e-5+wd", "A_b"])
def test_a_name_may_be_what_checkpoints_are_called(label):
    config(models=(f"{label}=m",)).check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": ()}, "there is nothing to evaluate: name checkpoints in models, or files in completions"),
        ({"models": ("a=m", "a=n")}, "the name 'a' is given twice"),
        ({"completions": ("new=c.jsonl",)}, "the name 'new' is given twice"),
        ({"baseline": "old"}, "the baseline 'old' is not one of base, new"),
        ({"samples_per_problem": 4, "pass_at_k": (1, 5)}, "pass@5 needs samples_per_problem of at least 5, not 4"),
        ({"engine": "server"}, "the server engine serves one model"),
        ({"sequential": {"equivalence_margin": 2}, "models": ("a=m",)}, "name two or more models"),
        ({"sequential": {"equivalence_margin": 2}, "completions": ("c=c.jsonl",)}, "name two or more models"),
        ({"sequential": {"equivalence_margin": 2}, "sweep": {"temperature": (0.6, 1.2)}}, "leave the sweep out here"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        config(**values).check()


@pytest.mark.parametrize(
    "values",
    [
        {"baseline": "new"},
        {"samples_per_problem": 4, "pass_at_k": (1, 4)},
        {"models": (), "completions": ("c=c.jsonl",), "pass_at_k": (8,)},
        {"models": ("a=m",), "engine": "server", "completions": ("c=c.jsonl",)},
        {"sequential": {"equivalence_margin": 2}, "sweep": {"temperature": (0.6,)}},
        {"sweep": {"temperature": (0.6, 1.2)}},
    ],
)
def test_settings_that_go_together_pass(values):
    config(**values).check()
