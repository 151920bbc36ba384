"""Sums by set against loops over the rows; what is refused, and with which words; traces that a probe lacks."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from ssdfast.attribution import load_probes, position_groups
from ssdfast.attribution.attribute import attribute
from ssdfast.attribution.load_probes import collect
from ssdfast.attribution.metrics import MEASURES, POSITIONS, ratios
from ssdfast.attribution.verdict import verdict
from ssdfast.run_dir import read_json, write_json
from ssdfast.sharded_table import Notes, Parts

from .synthetic import Planted, baseline, write


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("probes")
    base = baseline(traces=40)
    planted = {"ssd": Planted(strength=0.3, seed=1), "control": Planted(seed=2)}
    return {name: write(directory / name, base, one.logits(base)) for name, one in planted.items()}


def changed(probe, out, change):
    """A copy of a probe whose table is what `change` makes of it."""
    shutil.copytree(probe, out)
    parts = Parts(str(out / "probe"))
    table = pq.read_table(parts.files()[0])
    parts.write(0, change(table), Notes(""))
    return out


def test_sums_are_those_of_the_rows(probes):
    (one,) = collect([probes["ssd"]])
    names = position_groups.names(one.probe.class_names)
    rows = pq.read_table(Parts(str(probes["ssd"] / "probe")).files()[0]).to_pylist()
    picked = {
        ("class", "fork"): lambda row: row["position_class"] == "fork",
        ("class", "swap"): lambda row: row["position_class"] == "lock" and row["swap"],
        ("class", "self_correction"): lambda row: row["position_class"] == "lock" and row["self_correction"],
        ("token_class", "digits"): lambda row: row["token_class"] == "digits",
        ("to_think_end", "after"): lambda row: row["to_think_end"] < 0,
        ("to_think_end", "under 16"): lambda row: 0 <= row["to_think_end"] < 16,
        ("correct", "right"): lambda row: row["correct"] is True,
        ("all", "all"): lambda row: True,
    }
    for name, inside in picked.items():
        mine = [row for row in rows if inside(row)]
        sums_W = one.sums_TGW.sum(0)[names.index(name)]
        assert sums_W[POSITIONS] == len(mine), name
        found = dict(zip(MEASURES, ratios(sums_W), strict=True))
        if mine:
            assert found["kl_ba"] == pytest.approx(np.mean([row["kl_ba"] for row in mine]), rel=1e-5)
            compression = np.mean([row["ssd_terms"][3] - row["ssd_terms"][0] for row in mine])
            assert found["compression"] == pytest.approx(compression, rel=1e-4, abs=1e-7)
            share = sum(row["ssd_push"] ** 2 / row["ssd_chi2"] for row in mine) / sum(row["delta_var"] for row in mine)
            assert found["ssd_share"] == pytest.approx(share, rel=1e-5)


def test_every_kind_of_set_parts_the_positions(probes):
    (one,) = collect([probes["ssd"]])
    counts = dict(zip(position_groups.names(one.probe.class_names), one.sums_TGW.sum(0)[:, POSITIONS], strict=True))
    for kind in ("token_class", "to_think_end", "correct"):
        assert sum(count for (of, _), count in counts.items() if of == kind) == counts["all", "all"]
    classes = sum(count for (kind, name), count in counts.items() if kind == "class" and name != "self_correction")
    assert classes == counts["all", "all"]


def test_the_numbers_are_strict_json_and_seeded(probes):
    arms = {name: [path] for name, path in probes.items()}
    found = attribute(arms, "control", seed=1)
    json.dumps(found, allow_nan=False)
    assert found == attribute(arms, "control", seed=1)
    assert (found["traces"], found["problems"]) == (40, 20)
    assert "verdict" not in found["arms"]["control"]
    tests = found["arms"]["ssd"]["against_control"]["measures"]
    sizes = [abs(test["size"]) for test in tests]
    assert sizes == sorted(sizes, reverse=True)
    assert all(test["p_holm"] >= test["p"] for test in tests)


def test_an_arm_that_is_the_control_has_no_effect(probes):
    found = attribute({"ssd": [probes["ssd"]], "control": [probes["ssd"]]}, "control")["arms"]["ssd"]
    assert {test["p"] for test in found["against_control"]["measures"]} == {1.0}
    assert found["verdict"]["category"] == "none"


def test_only_traces_that_all_probes_have_are_compared(probes, tmp_path):
    fewer = changed(probes["ssd"], tmp_path / "fewer", lambda table: table.slice(50))
    found = attribute({"ssd": [fewer], "control": [probes["control"]]}, "control")
    assert found["traces"] == 35
    whole = attribute({"ssd": [probes["ssd"]], "control": [probes["control"]]}, "control")
    assert found["arms"]["ssd"]["movement"]["strength"]["mean"] == pytest.approx(
        whole["arms"]["ssd"]["movement"]["strength"]["mean"], abs=0.01
    )


def test_a_large_probe_is_fitted_on_positions_drawn_alike(probes, monkeypatch):
    whole = collect(list(probes.values()))
    monkeypatch.setattr(load_probes, "FIT_POSITIONS", 100)
    few = collect(list(probes.values()))
    assert 50 < len(few[0].trace_N) < 150
    assert (few[0].trace_N == few[1].trace_N).all()
    assert (few[0].moved.logp_a_NK == few[1].moved.logp_a_NK).all()
    assert (few[0].sums_TGW == whole[0].sums_TGW).all()


def test_invalid_positions_are_counted_and_left_out(probes, tmp_path):
    def spoil(table):
        spoiled = table.to_pydict()
        floats = [name for name in table.column_names if str(table.schema.field(name).type) == "float"]
        for name in floats:
            spoiled[name][3] = float("nan")
        return table.set_column(table.column_names.index("kl_ba"), "kl_ba", [np.array(spoiled["kl_ba"], np.float32)])

    bad = changed(probes["ssd"], tmp_path / "bad", spoil)
    found = attribute({"ssd": [bad], "control": [probes["control"]]}, "control")["arms"]["ssd"]
    assert found["invalid"] == 1
    assert found["pooled"][0]["positions"] == 399


def test_an_arm_that_moved_less_than_the_control_is_said_to(probes):
    """The noisier model as the control: self-distillation is named all the same."""
    parts = {"ssd": 0.003, "temperature": -0.001, "ending": 0.0, "drift": -0.04}
    ends = {name: {"mean": nats, "low": nats - 1e-4, "high": nats + 1e-4} for name, nats in parts.items()}
    found = attribute({"ssd": [probes["ssd"]], "control": [probes["control"]]}, "control")["arms"]["ssd"]
    beyond = found["against_control"] | {"parts": ends}
    said = verdict("ssd", "control", found["movement"], beyond)
    assert said["category"] == "ssd"
    assert said["headline"] == "self-distillation, though in all it moved less than control"
    assert "a change of temperature had that much (it has less than the control)" in said["text"]


def test_mistakes_are_named(probes, tmp_path):
    ssd, control = probes["ssd"], probes["control"]
    with pytest.raises(ValueError, match="the control 'plain' is none of the arms ssd, control"):
        attribute({"ssd": [ssd], "control": [control]}, "plain")
    with pytest.raises(ValueError, match="the arm 'ssd' has no probe"):
        attribute({"ssd": [], "control": [control]}, "control")
    with pytest.raises(ValueError, match="holds no finished probe"):
        attribute({"ssd": [tmp_path], "control": [control]}, "control")

    def other(name, **settings):
        out = shutil.copytree(ssd, tmp_path / name)
        summary = read_json(out / "summary.json")
        summary["settings"] |= settings
        write_json(out / "summary.json", summary)
        return out

    hotter = other("hotter", train={"temperature": 1.5, "top_k": 20, "top_p": 0.95})
    with pytest.raises(ValueError, match="probed with different settings"):
        attribute({"ssd": [hotter], "control": [control]}, "control")
    untruncated = other("untruncated", train={"temperature": 1.5, "top_k": 0, "top_p": 1.0})
    with pytest.raises(ValueError, match=r"train.top_k = 0: attribution needs a top_k of 1 to top = 20"):
        attribute({"ssd": [untruncated], "control": [control]}, "control")
    one_temperature = other("one_temperature", temperatures=[1.0])
    with pytest.raises(ValueError, match="probed at temperature 1 alone"):
        attribute({"ssd": [one_temperature], "control": [one_temperature]}, "control")
    moved = changed(
        ssd, tmp_path / "moved", lambda table: table.set_column(
            table.column_names.index("position"), "position", [np.arange(len(table), dtype=np.int32)]
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="has other positions or tokens"):
        attribute({"ssd": [moved], "control": [control]}, "control")
    older = changed(ssd, tmp_path / "older", lambda table: table.drop_columns(["to_think_end"]))
    with pytest.raises(ValueError, match="lacks to_think_end, an older version wrote it"):
        attribute({"ssd": [older], "control": [control]}, "control")
    one = changed(ssd, tmp_path / "one", lambda table: table.slice(0, 20))
    with pytest.raises(ValueError, match="share 1 problem"):
        attribute({"ssd": [one], "control": [control]}, "control")
