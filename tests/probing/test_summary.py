"""The summary against sums done by hand; intervals that know that positions of a trace hang together."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.probing.summary import summarize

FLOATS = (
    "kl_ab", "js", "delta_var", "ssd_push", "ssd_chi2", "ssd_alignment",
    "a_tail_mass", "b_tail_mass", "a_entropy", "b_entropy",
)  # fmt: skip
CLASSES = np.array(["lock", "fork", "diffuse", "mixed"])


def positions(lengths, label="baseline", seed=0, **columns):
    """A part with random values; `columns` replace some."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)

    def top(logprobs):
        return pa.FixedSizeListArray.from_arrays(pa.array(logprobs.reshape(-1).astype(np.float32)), 2)

    values = {
        "trace_id": np.repeat([f"p{i}#0" for i in range(len(lengths))], lengths),
        "label": np.repeat([label], n),
        "position_class": CLASSES[rng.integers(0, 4, n)],
        "swap": rng.random(n) < 0.5,
        "self_correction": rng.random(n) < 0.2,
        "a_top_logprobs": top(-rng.random((n, 2))),
        "b_top_logprobs": top(-rng.random((n, 2))),
        "b_at_a_top": top(-rng.random((n, 2))),
        "a_nucleus_size": rng.integers(1, 40, n).astype(np.int32),
        "b_nucleus_size": rng.integers(1, 40, n).astype(np.int32),
    }
    for name in FLOATS:
        values[name] = rng.random(n).astype(np.float32)
    return pa.table(values | columns)


def summary_of(tmp_path, *tables, seed=0):
    for i, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"part-{i:05d}.parquet")
    return summarize(tmp_path, seed)


def test_means_are_those_of_the_positions(tmp_path):
    one, two = positions([3, 40, 1, 9]), positions([20, 5], label="trained", seed=1)
    summary = summary_of(tmp_path, one, two)
    both = pa.concat_tables([one, two])
    column = {name: np.array(both[name].to_pylist(), dtype=object) for name in both.column_names}

    def expect(found, mask):
        assert found["positions"] == mask.sum()
        assert found["share"] == pytest.approx(mask.mean())
        pick = {name: values[mask] for name, values in column.items()}
        top = {
            name: np.exp([row[0] for row in pick[name]]) for name in ("a_top_logprobs", "b_top_logprobs", "b_at_a_top")
        }
        want = {
            "kl_ab": pick["kl_ab"].mean(),
            "js": pick["js"].mean(),
            "delta_top1": (top["b_top_logprobs"] - top["a_top_logprobs"]).mean(),
            "delta_at_a_top1": (top["b_at_a_top"] - top["a_top_logprobs"]).mean(),
            "delta_nucleus": (pick["b_nucleus_size"] - pick["a_nucleus_size"]).mean(),
            "delta_tail": (pick["b_tail_mass"] - pick["a_tail_mass"]).mean(),
            "delta_entropy": (pick["b_entropy"] - pick["a_entropy"]).mean(),
            "ssd_alignment": pick["ssd_alignment"].mean(),
            "ssd_share": (pick["ssd_push"] ** 2 / pick["ssd_chi2"]).sum() / pick["delta_var"].sum(),
        }
        assert {name: found[name]["mean"] for name in want} == pytest.approx(want, rel=1e-6)
        for name in want:
            assert found[name]["low"] <= found[name]["mean"] <= found[name]["high"]

    everything = np.ones(len(column["label"]), dtype=bool)
    lock = column["position_class"] == "lock"
    swap = column["swap"].astype(bool)
    expect(summary["all"], everything)
    for name in CLASSES:
        expect(summary["by_class"][name], column["position_class"] == name)
        for label in ("baseline", "trained"):
            mine = (column["position_class"] == name) & (column["label"] == label)
            expect(summary["by_label"][label]["by_class"][name], mine)
    expect(summary["locks"]["strict"], lock & ~swap)
    expect(summary["locks"]["swap"], lock & swap)
    expect(summary["locks"]["self_correction"], lock & column["self_correction"].astype(bool))
    expect(summary["by_label"]["trained"]["all"], column["label"] == "trained")
    assert summary["labels"] == {"baseline": 53, "trained": 25}
    assert (summary["positions"], summary["traces"], summary["invalid"]) == (78, 6, 0)


def test_invalid_positions_are_counted_and_left_out(tmp_path):
    kl = np.array([0.5, math.nan, 0.7, math.nan], dtype=np.float32)
    entropy = np.array([1.0, math.nan, 1.0, 1.0], dtype=np.float32)
    summary = summary_of(tmp_path, positions([2, 2], kl_ab=kl, b_entropy=entropy))
    assert (summary["positions"], summary["invalid"]) == (2, 2)
    assert summary["all"]["kl_ab"]["mean"] == pytest.approx(0.6)
    assert summary["all"]["delta_entropy"]["mean"] is not None


def test_what_is_undefined_is_null_and_the_json_is_strict(tmp_path):
    n = 4
    table = positions(
        [2, 2],
        position_class=np.array(["lock"] * n),
        ssd_alignment=np.full(n, np.nan, np.float32),
        ssd_chi2=np.zeros(n, np.float32),
        kl_ab=np.full(n, np.inf, np.float32),
    )
    summary = summary_of(tmp_path, table)
    nothing = {"mean": None, "low": None, "high": None}
    assert summary["by_class"]["fork"]["positions"] == 0
    assert summary["by_class"]["fork"]["kl_ab"] == nothing
    for name in ("ssd_alignment", "ssd_share", "kl_ab"):
        assert summary["all"][name] == nothing
    json.dumps(summary, allow_nan=False)


def test_an_undefined_position_does_not_dilute_the_others(tmp_path):
    alignment = np.array([0.5, np.nan, 0.7], np.float32)
    chi2 = np.array([2.0, 0.0, 2.0], np.float32)
    one = np.ones(3, np.float32)
    summary = summary_of(tmp_path, positions([3], ssd_alignment=alignment, ssd_chi2=chi2, ssd_push=one, delta_var=one))
    assert summary["all"]["ssd_alignment"]["mean"] == pytest.approx(0.6)
    assert summary["all"]["ssd_share"]["mean"] == pytest.approx(0.5)


def test_intervals_are_seeded(tmp_path):
    table = positions([5] * 8)
    assert summary_of(tmp_path, table, seed=1) == summary_of(tmp_path, table, seed=1)
    assert summary_of(tmp_path, table, seed=1) != summary_of(tmp_path, table, seed=2)


def test_intervals_are_clustered_by_trace(tmp_path):
    """40 traces of 25 equal positions are 40 observations, not 1000."""
    level = np.random.default_rng(3).standard_normal(40)
    kl = np.repeat(level, 25).astype(np.float32)
    found = summary_of(tmp_path, positions([25] * 40, kl_ab=kl))["all"]["kl_ab"]
    width = found["high"] - found["low"]
    assert width == pytest.approx(2 * 1.96 * level.std() / math.sqrt(40), rel=0.1)


def test_the_same_trace_id_of_two_labels_is_two_traces(tmp_path):
    assert summary_of(tmp_path, positions([4]), positions([4], label="trained"))["traces"] == 2
