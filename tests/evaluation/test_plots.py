"""Figures are the same bytes for the same results, refer to nothing outside, and show what the settings let through."""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree

import pytest

from ssdfast.config import EvalConfig
from ssdfast.evaluation import plots
from ssdfast.evaluation.plots import COLOURS, draw

SVG = "{http://www.w3.org/2000/svg}"


def arm(label="a", temperature=0.7, estimate=0.5, unit="tokens", **truncation):
    share = {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.05}
    quantiles = {"p5": 1.0, "p25": 100.0, "p50": 200.0 + 100 * estimate, "p75": 400.0, "p95": 900.0}
    health = {"length_unit": unit, "answered": {"estimate": 0.8, "low": 0.7, "high": 0.9}, "lengths": quantiles}
    known = {"top_k": 20, "top_p": 0.95, "min_p": 0.0} | truncation
    return {"checkpoint": label, "temperature": temperature, "accuracy": share, "health": health, **known}


def drawn(directory, *arms):
    return {path.stem: path for path in draw({"arms": list(arms)}, directory)}


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


SWEEP = [arm(label, t, 0.3 + 0.2 * t) for label in ("base", "new") for t in (1.2, 0.6, 0.9)]


def test_a_figure_each_of_accuracy_answers_and_lengths(tmp_path):
    found = drawn(tmp_path / "eval", *SWEEP)
    assert list(found) == ["accuracy", "answered", "lengths"]
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {"accuracy.svg", "answered.svg", "lengths.svg"}
    for name, label in (
        ("accuracy", "accuracy, %"),
        ("answered", "completions with an answer, %"),
        ("lengths", "length, tokens: median and quartiles"),
    ):
        assert {label, "temperature of evaluation", "base", "new", "0.6", "0.9", "1.2"} <= set(texts(found[name]))


def test_the_same_results_make_the_same_bytes(tmp_path):
    first, second = drawn(tmp_path / "1", *SWEEP), drawn(tmp_path / "2", *copy.deepcopy(SWEEP))
    for name in first:
        assert first[name].read_bytes() == second[name].read_bytes(), name
    other = drawn(tmp_path / "3", *SWEEP[:-1], arm("new", 0.9, 0.99))
    assert other["accuracy"].read_bytes() != first["accuracy"].read_bytes()


@pytest.mark.parametrize("name", ["accuracy", "answered", "lengths"])
def test_each_figure_shows_its_own_values(tmp_path, name):
    before, changed = drawn(tmp_path / "before", *SWEEP), copy.deepcopy(SWEEP)
    shown = changed[0] if name == "accuracy" else changed[0]["health"]
    shown[name] |= {"p50": 300.0} if name == "lengths" else {"estimate": 0.75, "low": 0.6, "high": 0.8}
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


def test_a_line_a_checkpoint_by_rising_temperature_in_the_order_of_the_arms(tmp_path):
    found = curves(drawn(tmp_path, *SWEEP, arm("base", 1.5, 0.9))["accuracy"])
    assert set(found) == set(COLOURS[:2])
    base, new = (max(found[colour], key=len) for colour in COLOURS[:2])
    assert (len(base), len(new)) == (4, 3)
    across = [float(x) for x, _ in base]
    assert across == sorted(across)
    assert [float(y) for _, y in base] == sorted((float(y) for _, y in base), reverse=True)  # down is more


def test_bars_reach_from_the_estimate_to_the_ends_of_its_interval():
    assert plots._percent({"estimate": 0.5, "low": 0.25, "high": 0.625}) == (50, 25, 12.5)
    assert plots._percent({"estimate": 0.5, "low": None, "high": None}) == (50, 0, 0)
    assert plots._quartiles({"p5": 1.0, "p25": 100.0, "p50": 250.0, "p75": 300.0, "p95": 900.0}) == (250, 150, 50)


def test_lines_are_named_by_the_truncation_that_differs(tmp_path):
    arms = [arm("a", t, top_k=k) for t in (0.6, 1.2) for k in (20, 0)] + [arm("b", t, top_k=None) for t in (0.6, 1.2)]
    found = texts(drawn(tmp_path, *arms)["accuracy"])
    assert {"a, top-k 20", "a, top-k 0", "b"} <= set(found)
    assert not any("top-p" in text or "min-p" in text for text in found)


def test_arms_at_no_known_temperature_stand_side_by_side(tmp_path):
    found = drawn(tmp_path, arm("base", None), arm("new", None), arm("third", 0.7), arm("fourth", 0.7, unit="words"))
    assert texts(found["accuracy"])[:4] == ["base", "new", "third", "fourth"]
    assert "temperature of evaluation" not in texts(found["accuracy"])
    assert "length, tokens/words: median and quartiles" in texts(found["lengths"])


def test_an_arm_at_no_known_temperature_is_a_level_beside_a_sweep(tmp_path):
    found = texts(drawn(tmp_path, arm("base", 0.7), arm("base", 1.2), arm("theirs", None))["accuracy"])
    assert "temperature of evaluation" in found
    assert "theirs" in found


def test_one_temperature_is_no_sweep_and_one_arm_is_enough(tmp_path):
    for arms in ([arm("base"), arm("new")], [arm("only")]):
        assert "temperature of evaluation" not in texts(drawn(tmp_path, *arms)["accuracy"])


def test_an_arm_without_an_interval_is_drawn(tmp_path):
    one = arm("base")
    for share in (one["accuracy"], one["health"]["answered"]):
        share.update(low=None, high=None)
    assert "base" in texts(drawn(tmp_path, one)["accuracy"])


@pytest.mark.parametrize("estimate", [0.0, 1.0])
def test_shares_at_either_end_are_drawn(tmp_path, estimate):
    one = arm("base", estimate=estimate)
    one["accuracy"].update(low=max(estimate - 0.1, 0.0), high=min(estimate + 0.1, 1.0))
    assert len(drawn(tmp_path, one)) == 3


@pytest.mark.parametrize("swept", [False, True])
def test_of_fourteen_checkpoints_none_looks_like_another(tmp_path, swept):
    labels = [f"run{n}" for n in range(14)]
    arms = [arm(label, t) for label in labels for t in ((0.6, 1.2) if swept else (None,))]
    path = drawn(tmp_path, *arms)["accuracy"]
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
def test_a_label_that_names_no_directory_is_refused(label):
    path = {"name": label, "path": "m"}
    for settings in ({"models": (path,)}, {"models": (), "completions": (path,)}, {"completions": (path,)}):
        with pytest.raises(ValueError, match=re.escape(f"the label {label!r} is to name a directory")):
            config(**settings).check()


def test_an_empty_label_is_refused():
    with pytest.raises(ValueError, match="at least 1 character"):
        config(models=({"name": "", "path": "m"},))
    with pytest.raises(ValueError, match="written LABEL=PATH"):
        config(models=("=m",))


@pytest.mark.parametrize("label", ["a", "step-100", "T1.1", "lr1e-5+wd", "A_b"])
def test_a_label_may_be_what_checkpoints_are_called(label):
    config(models=(f"{label}=m",)).check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": ()}, "nothing is evaluated: name checkpoints in models, or files of completions"),
        ({"models": ("a=m", "a=n")}, "the label 'a' is there twice"),
        ({"completions": ("new=c.jsonl",)}, "the label 'new' is there twice"),
        ({"baseline": "old"}, "the baseline 'old' is none of base, new"),
        ({"samples": 4, "pass_at": (1, 5)}, "pass@5 needs as many samples of each problem, not 4"),
        ({"engine": "server"}, "the server engine asks one model"),
        ({"sequential": {"margin": 2}, "models": ("a=m",)}, "name two or more models"),
        ({"sequential": {"margin": 2}, "completions": ("c=c.jsonl",)}, "name two or more models"),
        ({"sequential": {"margin": 2}, "sweep": {"temperature": (0.6, 1.2)}}, "leave the sweep out here"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        config(**values).check()


@pytest.mark.parametrize(
    "values",
    [
        {"baseline": "new"},
        {"samples": 4, "pass_at": (1, 4)},
        {"models": (), "completions": ("c=c.jsonl",), "pass_at": (8,)},
        {"models": ("a=m",), "engine": "server", "completions": ("c=c.jsonl",)},
        {"sequential": {"margin": 2}, "sweep": {"temperature": (0.6,)}},
        {"sweep": {"temperature": (0.6, 1.2)}},
    ],
)
def test_settings_that_go_together_pass(values):
    config(**values).check()
