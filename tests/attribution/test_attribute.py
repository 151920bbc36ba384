"""Sums by set against loops over the rows; what is refused, and with which words; traces that a probe lacks."""

import json
import shutil
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.attribution import load_probes, position_groups
from ssdfast.attribution.attribute import _positions
from ssdfast.attribution.load_probes import read_probes
from ssdfast.attribution.metrics import METRICS, POSITIONS, ratios
from ssdfast.attribution.power import component_tests
from ssdfast.attribution.verdict import contradicted_by, verdict
from ssdfast.attribution.verdict_rules import Design
from ssdfast.run_dir import read_json, write_json
from ssdfast.sharded_table import ShardedTable, ShardMetadata
from ssdfast.statistics import holm
from tests.as_json import attribute

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
    parts = ShardedTable(str(out / "positions"))
    table = pq.read_table(parts.files()[0])
    parts.write(0, change(table), ShardMetadata(""))
    return out


def test_sums_are_those_of_the_rows(probes):
    (one,) = read_probes([probes["ssd"]])
    names = position_groups.names(one.probe.token_classes)
    rows = pq.read_table(ShardedTable(str(probes["ssd"] / "positions")).files()[0]).to_pylist()
    picked = {
        ("position_class", "fork"): lambda row: row["position_class"] == "fork",
        ("lock_kind", "top1_changed"): lambda row: row["position_class"] == "lock" and row["top1_changed"],
        ("lock_kind", "self_correction"): lambda row: row["position_class"] == "lock" and row["self_correction"],
        ("token_class", "digits"): lambda row: row["token_class"] == "digits",
        ("tokens_to_think_end", "after"): lambda row: row["tokens_to_think_end"] < 0,
        ("tokens_to_think_end", "under 16"): lambda row: 0 <= row["tokens_to_think_end"] < 16,
        ("correct", "correct"): lambda row: row["correct"] is True,
        ("all", "all"): lambda row: True,
    }
    for name, inside in picked.items():
        mine = [row for row in rows if inside(row)]
        sums_W = one.sums_TGW.sum(0)[names.index(name)]
        assert sums_W[POSITIONS] == len(mine), name
        found = dict(zip(METRICS, ratios(sums_W), strict=True))
        if mine:
            assert found["kl_trained_base"] == pytest.approx(
                np.mean([row["kl_trained_base"] for row in mine]), rel=1e-5
            )
            compression = np.mean([row["trained_ce_compression"] - row["base_ce_compression"] for row in mine])
            assert found["ce_compression"] == pytest.approx(compression, rel=1e-4, abs=1e-7)
            fraction = sum(row["ssd_cov"] ** 2 / row["ssd_var"] for row in mine) / sum(
                row["logratio_var"] for row in mine
            )
            assert found["ssd_variance_fraction"] == pytest.approx(fraction, rel=1e-5)


def test_every_kind_of_group_partitions_the_positions(probes):
    (one,) = read_probes([probes["ssd"]])
    counts = dict(zip(position_groups.names(one.probe.token_classes), one.sums_TGW.sum(0)[:, POSITIONS], strict=True))
    for kind in ("token_class", "tokens_to_think_end", "correct"):
        assert sum(count for (of, _), count in counts.items() if of == kind) == counts["all", "all"]
    classes = sum(
        count
        for (kind, name), count in counts.items()
        if kind in ("lock_kind", "position_class") and name != "self_correction"
    )
    assert classes == counts["all", "all"]


def test_the_numbers_are_strict_json_and_the_same_again(probes):
    arms = {name: [path] for name, path in probes.items()}
    found = attribute(arms, "control")
    json.dumps(found, allow_nan=False)
    assert found == attribute(arms, "control")
    assert (found["traces"], found["problems"]) == (40, 20)
    assert "verdict" not in found["arms"]["control"]
    tests = found["arms"]["ssd"]["vs_control"]["metrics"]
    sizes = [abs(test["effect_size_sd"]) for test in tests]
    assert sizes == sorted(sizes, reverse=True)
    assert all(test["p_value_holm"] >= test["p_value"] for test in tests)


def test_every_family_of_tests_is_corrected_for_all_of_its_tests(probes):
    arms = {"ssd": [probes["ssd"]], "again": [probes["ssd"]], "control": [probes["control"]]}
    found = attribute(arms, "control")["arms"]
    comparisons = [found[name]["vs_control"] for name in ("ssd", "again")]
    assert sum(len(comparison["tests"]) for comparison in comparisons) == component_tests(len(arms)) == 8
    for family in ("tests", "metrics", "groups"):
        tests = [test for comparison in comparisons for test in comparison[family] if test["p_value"] is not None]
        corrected = holm([test["p_value"] for test in tests])
        assert [test["p_value_holm"] for test in tests] == pytest.approx(corrected.tolist())
    for test in comparisons[0]["tests"][:3]:
        classes = test["by_position_class"]
        corrected = holm([entry["p_value"] for entry in classes])
        assert [entry["p_value_holm"] for entry in classes] == pytest.approx(corrected.tolist())
    alone = attribute({name: arms[name] for name in ("ssd", "control")}, "control")["arms"]["ssd"]["vs_control"]
    for name, parameter in alone["parameters"].items():
        assert parameter["mde"] < comparisons[0]["parameters"][name]["mde"]


@pytest.mark.parametrize(
    ("seeds", "control_seeds", "scope"), [(1, 1, "models"), (1, 3, "recipes"), (3, 1, "recipes"), (2, 2, "recipes")]
)
def test_a_verdict_is_about_recipes_once_either_has_two_seeds(seeds, control_seeds, scope):
    assert Design(seeds, control_seeds, 20, 4).scope == scope


@pytest.mark.parametrize(
    ("residual", "unexplained", "is_said"),
    [
        (0.40, 0.05, True),
        (0.06, 0.005, True),
        (0.06, 0.04, False),  # of the shift, 2 % more
        (0.10, 0.06, False),  # 4 % more than all components explain
        (0.995, 0.99, False),  # twice as much, of next to nothing
        (0.05, 0.40, False),
    ],
)
def test_a_setting_is_contradicted_by_what_explains_clearly_more(residual, unexplained, is_said):
    fit = {"temperature": 0.7, "top_k": 20, "top_p": 0.95, "ssd_strength": 0.5, "unexplained_fraction": unexplained}
    shift = {
        "single_component_fits": {"truncation": fit},
        "components": {"residual": {"fraction": {"value": residual}}},
    }
    assert contradicted_by(shift) == (fit if is_said else None)


def test_an_arm_that_is_the_control_has_no_effect(probes):
    found = attribute({"ssd": [probes["ssd"]], "control": [probes["ssd"]]}, "control")["arms"]["ssd"]
    assert {test["p_value"] for test in found["vs_control"]["metrics"]} == {1.0}
    assert found["verdict"]["category"] == "none"


def test_only_traces_that_all_probes_have_are_compared(probes, tmp_path):
    fewer = changed(probes["ssd"], tmp_path / "fewer", lambda table: table.slice(50))
    found = attribute({"ssd": [fewer], "control": [probes["control"]]}, "control")
    assert found["traces"] == 35
    whole = attribute({"ssd": [probes["ssd"]], "control": [probes["control"]]}, "control")
    assert found["arms"]["ssd"]["shift"]["ssd_strength"]["value"] == pytest.approx(
        whole["arms"]["ssd"]["shift"]["ssd_strength"]["value"], abs=0.01
    )


def test_a_large_probe_is_fitted_on_positions_drawn_alike(probes, monkeypatch):
    whole = read_probes(list(probes.values()))
    monkeypatch.setattr(load_probes, "FIT_POSITIONS", 100)
    few = read_probes(list(probes.values()))
    assert 50 < len(few[0].trace_N) < 150
    assert (few[0].trace_N == few[1].trace_N).all()
    assert (few[0].positions().base_logp_NK == few[1].positions().base_logp_NK).all()
    assert (few[0].sums_TGW == whole[0].sums_TGW).all()


def test_probes_of_one_baseline_share_its_columns_in_memory_and_those_of_others_do_not(probes, tmp_path):
    def rounded_otherwise(table):
        name = "base_top_logprobs"
        lists = table[name].combine_chunks()
        values = np.nextafter(lists.flatten().to_numpy(), np.float32(-np.inf))
        column = pa.FixedSizeListArray.from_arrays(pa.array(values), lists.type.list_size)
        return table.set_column(table.column_names.index(name), name, column)

    other = changed(probes["control"], tmp_path / "other", rounded_otherwise)
    ssd, control, third = read_probes([probes["ssd"], probes["control"], other])
    assert np.shares_memory(ssd.columns.base_logp_NK, control.columns.base_logp_NK)
    assert np.shares_memory(ssd.columns.log_mass_NM, third.columns.log_mass_NM)
    assert (ssd.columns.base_logp_NK > third.columns.base_logp_NK).all()
    assert not np.shares_memory(control.columns.trained_logp_NK, third.columns.trained_logp_NK)
    (alone,) = read_probes([other])
    for field in fields(alone.columns):
        assert np.array_equal(getattr(alone.columns, field.name), getattr(third.columns, field.name)), field.name


def test_positions_of_the_fits_are_those_of_the_table(probes):
    (one,) = read_probes([probes["ssd"]])
    table = pq.read_table(ShardedTable(str(probes["ssd"] / "positions")).files()[0])
    columns = one.positions()
    for name, column in (("base_logp_NK", "base_top_logprobs"), ("trained_logp_NK", "trained_logprobs_at_base_top")):
        values_NK = np.array(table[column].to_pylist())
        assert getattr(columns, name).dtype == np.float64
        assert (getattr(columns, name) == values_NK).all()
    assert (columns.kl_N == table["kl_trained_base"].to_numpy()).all()
    assert (one.positions(np.array([3, 1])).kl_N == columns.kl_N[[3, 1]]).all()


def test_the_fits_of_many_seeds_take_positions_of_each(probes, monkeypatch):
    seeds = [probes["ssd"], probes["control"], probes["ssd"]]
    whole = attribute({"ssd": seeds, "control": [probes["control"]]}, "control")
    loaded = read_probes(seeds)
    assert len(_positions(loaded).kl_N) == 1200
    monkeypatch.setattr("ssdfast.attribution.attribute._SINGLE_FIT_POSITIONS", 400)
    few = _positions(loaded)
    assert (few.kl_N == np.concatenate([loaded[i].positions().kl_N[i::3] for i in range(3)])).all()
    assert len(few.kl_N) == 400
    sampled = attribute({"ssd": seeds, "control": [probes["control"]]}, "control")
    for name, fit in sampled["arms"]["ssd"]["shift"].pop("single_component_fits").items():
        other = whole["arms"]["ssd"]["shift"]["single_component_fits"][name]
        assert fit["unexplained_fraction"] == pytest.approx(other["unexplained_fraction"], abs=0.1), name
    for arm in (whole["arms"]["ssd"], sampled["arms"]["ssd"]):
        arm["shift"].pop("single_component_fits", None)
        arm["verdict"] = arm["verdict"]["category"]  # its text quotes these fits
    assert sampled["arms"]["ssd"] == whole["arms"]["ssd"]


def test_invalid_positions_are_counted_and_left_out(probes, tmp_path):
    def spoil(table):
        spoiled = table.to_pydict()
        floats = [name for name in table.column_names if str(table.schema.field(name).type) == "float"]
        for name in floats:
            spoiled[name][3] = float("nan")
        return table.set_column(
            table.column_names.index("kl_trained_base"),
            "kl_trained_base",
            [np.array(spoiled["kl_trained_base"], np.float32)],
        )

    bad = changed(probes["ssd"], tmp_path / "bad", spoil)
    found = attribute({"ssd": [bad], "control": [probes["control"]]}, "control")["arms"]["ssd"]
    assert found["invalid"] == 1
    assert found["by_group"][0]["positions"] == 399


def test_a_model_without_finite_logits_is_named(probes, tmp_path):
    def spoil(table):
        nan_N = pa.array(np.full(len(table), np.nan, np.float32))
        return table.set_column(table.column_names.index("kl_trained_base"), "kl_trained_base", nan_N)

    bad = changed(probes["ssd"], tmp_path / "bad", spoil)
    with pytest.raises(ValueError, match=r"bad has 400 positions and finite logits at none of them: train the model"):
        attribute({"ssd": [bad], "control": [probes["control"]]}, "control")


def test_a_shift_smaller_than_the_controls_is_stated(probes):
    """The noisier model as the control: self-distillation is named all the same."""
    parts = {"ssd": 0.003, "temperature": -0.001, "eos_bias": 0.0, "residual": -0.04}
    ends = {name: {"value": nats, "ci_low": nats - 1e-4, "ci_high": nats + 1e-4} for name, nats in parts.items()}
    whole = attribute({"ssd": [probes["ssd"]], "control": [probes["control"]]}, "control")
    found = whole["arms"]["ssd"]
    beyond = found["vs_control"] | {"components": ends}
    said = verdict("ssd", "control", Design(3, 3, 20, 4), found["shift"], beyond, whole["settings"]["train_sampling"])
    assert said["category"] == "ssd"
    assert said["headline"] == "self-distillation, though its whole shift is smaller than that of control"


def test_mistakes_are_named(probes, tmp_path):
    ssd, control = probes["ssd"], probes["control"]
    with pytest.raises(ValueError, match="the control 'plain' is not an arm: the arms are ssd, control"):
        attribute({"ssd": [ssd], "control": [control]}, "plain")
    with pytest.raises(ValueError, match="the arm 'ssd' has no probe"):
        attribute({"ssd": [], "control": [control]}, "control")
    with pytest.raises(ValueError, match=r"has no summary\.json: finish the probe"):
        attribute({"ssd": [tmp_path], "control": [control]}, "control")

    def other(name, **settings):
        out = shutil.copytree(ssd, tmp_path / name)
        summary = read_json(out / "summary.json")
        summary["settings"] |= settings
        write_json(out / "summary.json", summary)
        return out

    hotter = other("hotter", train_sampling={"temperature": 1.5, "top_k": 20, "top_p": 0.95})
    with pytest.raises(ValueError, match="probed with different settings"):
        attribute({"ssd": [hotter], "control": [control]}, "control")
    untruncated = other("untruncated", train_sampling={"temperature": 1.5, "top_k": 0, "top_p": 1.0})
    with pytest.raises(ValueError, match=r"train_sampling.top_k = 0: attribution needs 1 to top_logprobs = 20"):
        attribute({"ssd": [untruncated], "control": [control]}, "control")
    one_temperature = other("one_temperature", lse_temperatures=[1.0])
    with pytest.raises(ValueError, match="probed at temperature 1 alone"):
        attribute({"ssd": [one_temperature], "control": [one_temperature]}, "control")
    other_positions = changed(
        ssd, tmp_path / "other_positions", lambda table: table.set_column(
            table.column_names.index("position"), "position", [np.arange(len(table), dtype=np.int32)]
        )
    )  # fmt: skip
    with pytest.raises(ValueError, match="has other positions or tokens"):
        attribute({"ssd": [other_positions], "control": [control]}, "control")
    older = changed(ssd, tmp_path / "older", lambda table: table.drop_columns(["tokens_to_think_end"]))
    with pytest.raises(ValueError, match="lacks tokens_to_think_end, another version wrote it"):
        attribute({"ssd": [older], "control": [control]}, "control")
    one = changed(ssd, tmp_path / "one", lambda table: table.slice(0, 20))
    with pytest.raises(ValueError, match="have 1 in common"):
        attribute({"ssd": [one], "control": [control]}, "control")
