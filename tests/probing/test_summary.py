"""The summary against sums done by hand; intervals that know that positions of a trace hang together."""

import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast import statistics
from ssdfast.probing import summary as module
from ssdfast.probing.summary import MEANS, summarize

FLOATS = (
    "kl_base_trained", "js", "logratio_var", "ssd_cov", "ssd_var", "ssd_alignment",
    "base_tail_mass", "trained_tail_mass", "base_entropy", "trained_entropy", "kl_trained_base",
)  # fmt: skip
LOGPROBS = ("base_top1_logprob", "trained_top1_logprob", "trained_logprob_at_base_top1")
SOURCES = ("baseline", "trained")
NOTHING = {"value": None, "ci_low": None, "ci_high": None}
CLASSES = np.array(["lock", "fork", "diffuse", "mixed"])


def positions(lengths, label="baseline", seed=0, **columns):
    """A part with random values; `columns` replace some."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)

    values = {
        "trace_id": np.repeat([f"p{i}#0" for i in range(len(lengths))], lengths),
        "trace_source": np.repeat([label], n),
        "position_class": CLASSES[rng.integers(0, 4, n)],
        "top1_changed": rng.random(n) < 0.5,
        "self_correction": rng.random(n) < 0.2,
        "base_nucleus_size": rng.integers(1, 40, n).astype(np.int32),
        "trained_nucleus_size": rng.integers(1, 40, n).astype(np.int32),
    }
    for name in FLOATS:
        values[name] = rng.random(n).astype(np.float32)
    for name in LOGPROBS:
        values[name] = -rng.random(n).astype(np.float32)
    table = pa.table(values | columns)
    for i, name in enumerate(table.column_names):
        if name in ("trace_id", "trace_source", "position_class"):
            table = table.set_column(i, name, table[name].dictionary_encode())
    return table


def summary_of(*tables, seed=0, trace_sources=SOURCES, rows_a_group=None):
    parts = []
    for table in tables:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=rows_a_group)
        parts.append(pq.ParquetFile(buffer))
    return summarize(iter(parts), trace_sources, seed)


def as_python(*tables):
    """The columns of all tables, as arrays of Python values."""
    whole = pa.concat_tables(
        [pa.table({name: table[name].to_pylist() for name in table.column_names}) for table in tables]
    )
    return {name: np.array(whole[name].to_pylist(), dtype=object) for name in whole.column_names}


def by_hand(pick):
    """The mean of each term where nothing is undefined."""
    top = {name: np.array([math.exp(value) for value in pick[name]]) for name in LOGPROBS}
    return {
        "kl_trained_base": pick["kl_trained_base"].mean(),
        "kl_base_trained": pick["kl_base_trained"].mean(),
        "js": pick["js"].mean(),
        "delta_top1_prob": (top["trained_top1_logprob"] - top["base_top1_logprob"]).mean(),
        "delta_prob_at_base_top1": (top["trained_logprob_at_base_top1"] - top["base_top1_logprob"]).mean(),
        "delta_nucleus_size": (pick["trained_nucleus_size"] - pick["base_nucleus_size"]).mean(),
        "delta_tail_mass": (pick["trained_tail_mass"] - pick["base_tail_mass"]).mean(),
        "delta_entropy": (pick["trained_entropy"] - pick["base_entropy"]).mean(),
        "ssd_alignment": pick["ssd_alignment"].mean(),
        "ssd_variance_fraction": (pick["ssd_cov"] ** 2 / pick["ssd_var"]).sum() / pick["logratio_var"].sum(),
    }


def test_means_are_those_of_the_positions():
    one, two = positions([3, 40, 1, 9]), positions([20, 5], label="trained", seed=1)
    summary = summary_of(one, two)
    column = as_python(one, two)

    def expect(found, mask):
        pick = {name: values[mask] for name, values in column.items()}
        assert found["positions"] == mask.sum()
        assert found["position_fraction"] == pytest.approx(mask.mean())
        want = by_hand(pick)
        assert {name: found[name]["value"] for name in want} == pytest.approx(want, rel=1e-6)
        for name in want:
            assert found[name]["ci_low"] <= found[name]["value"] <= found[name]["ci_high"]

    everything = np.ones(len(column["trace_source"]), dtype=bool)
    lock = column["position_class"] == "lock"
    top1_changed = column["top1_changed"].astype(bool)
    expect(summary["all"], everything)
    for name in CLASSES:
        expect(summary["by_position_class"][name], column["position_class"] == name)
        for label in ("baseline", "trained"):
            mine = (column["position_class"] == name) & (column["trace_source"] == label)
            expect(summary["by_trace_source"][label]["by_position_class"][name], mine)
    expect(summary["by_lock_kind"]["strict"], lock & ~top1_changed)
    expect(summary["by_lock_kind"]["top1_changed"], lock & top1_changed)
    expect(summary["by_lock_kind"]["self_correction"], lock & column["self_correction"].astype(bool))
    expect(summary["by_trace_source"]["trained"]["all"], column["trace_source"] == "trained")
    assert summary["trace_sources"] == {"baseline": 53, "trained": 25}
    assert (summary["positions"], summary["traces"], summary["invalid"]) == (78, 6, 0)


def test_invalid_positions_are_counted_and_left_out():
    kl = np.array([0.5, math.nan, 0.7, math.nan], dtype=np.float32)
    entropy = np.array([1.0, math.nan, 1.0, 1.0], dtype=np.float32)
    summary = summary_of(positions([2, 2], kl_base_trained=kl, trained_entropy=entropy))
    assert (summary["positions"], summary["invalid"]) == (2, 2)
    assert summary["all"]["kl_base_trained"]["value"] == pytest.approx(0.6)
    assert summary["all"]["delta_entropy"]["value"] is not None


def test_what_is_undefined_is_null_and_the_json_is_strict():
    n = 4
    table = positions(
        [2, 2],
        position_class=np.array(["lock"] * n),
        ssd_alignment=np.full(n, np.nan, np.float32),
        ssd_var=np.zeros(n, np.float32),
        kl_base_trained=np.full(n, np.inf, np.float32),
    )
    summary = summary_of(table)
    assert summary["by_position_class"]["fork"]["positions"] == 0
    assert summary["by_position_class"]["fork"]["kl_base_trained"] == NOTHING
    for name in ("ssd_alignment", "ssd_variance_fraction", "kl_base_trained"):
        assert summary["all"][name] == NOTHING
    json.dumps(summary, allow_nan=False)


def test_an_undefined_position_does_not_dilute_the_others():
    alignment = np.array([0.5, np.nan, 0.7], np.float32)
    chi2 = np.array([2.0, 0.0, 2.0], np.float32)
    one = np.ones(3, np.float32)
    summary = summary_of(positions([3], ssd_alignment=alignment, ssd_var=chi2, ssd_cov=one, logratio_var=one))
    assert summary["all"]["ssd_alignment"]["value"] == pytest.approx(0.6)
    assert summary["all"]["ssd_variance_fraction"]["value"] == pytest.approx(0.5)


def test_intervals_are_seeded():
    table = positions([5] * 8)
    assert summary_of(table, seed=1) == summary_of(table, seed=1)
    assert summary_of(table, seed=1) != summary_of(table, seed=2)


def test_intervals_are_clustered_by_trace():
    """40 traces of 25 equal positions are 40 observations, not 1000."""
    level = np.random.default_rng(3).standard_normal(40)
    kl = np.repeat(level, 25).astype(np.float32)
    found = summary_of(positions([25] * 40, kl_base_trained=kl))["all"]["kl_base_trained"]
    width = found["ci_high"] - found["ci_low"]
    assert width == pytest.approx(2 * 1.96 * level.std() / math.sqrt(40), rel=0.1)


def test_the_same_trace_id_of_two_sources_is_two_traces():
    one, two = positions([4]), positions([4], label="trained", seed=1)
    apart, together = summary_of(one, two), summary_of(pa.concat_tables([one, two]).unify_dictionaries())
    assert apart["traces"] == 2
    assert apart == together


def test_a_trace_may_span_batches_and_row_groups(monkeypatch):
    """The sums of each trace decide the intervals, so a trace taken for two would move them."""
    tables = positions([3, 40, 1, 9]), positions([20, 5], label="trained", seed=1)
    whole = summary_of(*tables)
    for batch, rows_a_group in ((32_768, 2), (1, 1000), (7, 1000), (20, 3)):
        monkeypatch.setattr(module, "_BATCH", batch)
        cut = summary_of(*tables, rows_a_group=rows_a_group)
        assert cut["traces"] == whole["traces"] == 6
        assert flat(cut) == pytest.approx(flat(whole), rel=1e-9)


def flat(entry, path=""):
    """The numbers of a nested entry by their paths."""
    if not isinstance(entry, dict):
        return {path: entry}
    return {place: value for key, inner in entry.items() for place, value in flat(inner, f"{path}/{key}").items()}


def test_every_resample_has_as_many_draws_as_traces(monkeypatch):
    """In blocks of 3: a trace's count has mean 1 and variance 1 - 1/G, two together -1/G."""
    monkeypatch.setattr(statistics, "_BLOCK", 3)
    monkeypatch.setattr(module, "RESAMPLES", 100_000)
    traces = 8
    sums = [np.zeros((n, module._CELLS, module._WIDTH)) for n in (5, 3)]
    for g in range(traces):
        sums[g // 5][g % 5, 0, g] = 1  # each trace in a column of its own
    counts_RG = module._bootstrap(sums, 0)[:, :, 0, :traces].sum(1)
    assert (counts_RG.sum(1) == traces).all()
    want = np.full((traces, traces), -1 / traces) + np.eye(traces)
    assert np.cov(counts_RG.T) == pytest.approx(want, abs=0.02)
    assert counts_RG.mean(0) == pytest.approx(np.ones(traces), abs=0.02)


def test_sources_are_described_in_the_order_given_and_once():
    table = positions([4], label="trained")
    summary = summary_of(table, positions([2, 1]), trace_sources=["none", "trained", "baseline", "trained"])
    assert list(summary["trace_sources"].items()) == [("none", 0), ("trained", 4), ("baseline", 3)]
    assert list(summary["by_trace_source"]) == ["none", "trained", "baseline"]
    described = summary["by_trace_source"]["none"]["by_position_class"]["lock"]
    assert described == {"positions": 0, "position_fraction": 0.0} | dict.fromkeys(
        (*MEANS, "ssd_variance_fraction"), NOTHING
    )


def test_a_source_that_is_not_in_the_settings_is_refused():
    with pytest.raises(ValueError, match=r"trace 'p0#0' of 'other', this probe has baseline, trained"):
        summary_of(positions([2]), positions([2], label="other"))


@pytest.mark.parametrize("tables", [[], [positions([4])[:0]]], ids=["no part", "a part without rows"])
def test_a_probe_without_positions_is_described(tables):
    summary = summary_of(*tables)
    assert (summary["positions"], summary["traces"], summary["invalid"]) == (0, 0, 0)
    assert summary["all"]["position_fraction"] is None
    json.dumps(summary, allow_nan=False)


def test_a_trace_without_a_valid_position_is_still_a_trace():
    kl = np.array([0.5, math.nan, math.nan], dtype=np.float32)
    summary = summary_of(positions([1, 2], kl_base_trained=kl))
    assert (summary["positions"], summary["traces"], summary["invalid"]) == (1, 2, 2)


def test_an_infinite_kl_spoils_only_the_sets_it_is_in():
    kl = np.array([math.inf, 0.5, 0.7, 0.9], dtype=np.float32)
    kinds = np.array(["fork", "lock", "lock", "mixed"])
    summary = summary_of(positions([2, 2], kl_base_trained=kl, position_class=kinds))
    assert summary["by_position_class"]["fork"]["kl_base_trained"]["value"] is None
    assert summary["all"]["kl_base_trained"]["value"] is None
    assert summary["all"]["js"]["value"] is not None
    assert summary["by_position_class"]["lock"]["kl_base_trained"]["value"] == pytest.approx(0.6)
    assert summary["by_position_class"]["mixed"]["kl_base_trained"]["ci_low"] == pytest.approx(0.9)


SPECIAL = st.one_of(
    st.floats(0, 100, width=32), st.sampled_from([0.0, math.nan, math.inf, -math.inf]), st.floats(-1, 0, width=32)
)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_table_gives_the_sums_of_its_positions(data):
    """Against a loop over the positions in Python's float64."""
    tables = []
    for label in SOURCES:
        lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        n = sum(lengths)
        odd = {
            name: np.array(data.draw(st.lists(SPECIAL, min_size=n, max_size=n)), np.float32)
            for name in data.draw(
                st.sets(
                    st.sampled_from(
                        ["kl_trained_base", "kl_base_trained", "js", "ssd_var", "ssd_alignment", "trained_entropy"]
                    )
                )
            )
        }
        tables.append(positions(lengths, label=label, seed=data.draw(st.integers(0, 9)), **odd))
    if data.draw(st.booleans()):
        tables = [pa.concat_tables(tables).unify_dictionaries()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RESAMPLES", 20)
        patch.setattr(module, "_BATCH", data.draw(st.integers(1, 12)))
        summary = summary_of(*tables)
    rows = [row for table in tables for row in table.to_pylist()]
    valid = [row for row in rows if not math.isnan(row["kl_base_trained"])]
    assert (summary["positions"], summary["invalid"]) == (len(valid), len(rows) - len(valid))
    sets = {("all",): lambda row: True}
    for kind in CLASSES:
        sets["by_position_class", kind] = lambda row, kind=kind: row["position_class"] == kind
        for label in SOURCES:
            sets["by_trace_source", label, "by_position_class", kind] = lambda row, kind=kind, label=label: (
                (row["position_class"], row["trace_source"]) == (kind, label)
            )
    sets["by_lock_kind", "strict"] = lambda row: row["position_class"] == "lock" and not row["top1_changed"]
    sets["by_lock_kind", "top1_changed"] = lambda row: row["position_class"] == "lock" and row["top1_changed"]
    sets["by_lock_kind", "self_correction"] = lambda row: row["position_class"] == "lock" and row["self_correction"]
    for path, inside in sets.items():
        found = summary
        for key in path:
            found = found[key]
        mine = [row for row in valid if inside(row)]
        assert found["positions"] == len(mine), path
        for name, terms in term_by_term(mine).items():
            over, under = (sum(side) for side in zip(*terms, strict=True)) if terms else (math.nan, math.nan)
            want = over / under if under and math.isfinite(over / under) else None
            assert found[name]["value"] == (want if want is None else pytest.approx(want, rel=1e-9, abs=1e-12)), (
                path,
                name,
            )


def term_by_term(rows):
    """For each mean the numerators and denominators of the positions at which both are defined."""
    undivided = {
        "kl_trained_base": lambda row: row["kl_trained_base"],
        "kl_base_trained": lambda row: row["kl_base_trained"],
        "js": lambda row: row["js"],
        "delta_top1_prob": lambda row: math.exp(row["trained_top1_logprob"]) - math.exp(row["base_top1_logprob"]),
        "delta_prob_at_base_top1": lambda row: (
            math.exp(row["trained_logprob_at_base_top1"]) - math.exp(row["base_top1_logprob"])
        ),
        "delta_nucleus_size": lambda row: row["trained_nucleus_size"] - row["base_nucleus_size"],
        "delta_tail_mass": lambda row: row["trained_tail_mass"] - row["base_tail_mass"],
        "delta_entropy": lambda row: row["trained_entropy"] - row["base_entropy"],
        "ssd_alignment": lambda row: row["ssd_alignment"],
    }
    terms = {
        name: [(value, 1) for value in map(term, rows) if not math.isnan(value)] for name, term in undivided.items()
    }
    asked = [row for row in rows if row["ssd_var"] > 0]
    return terms | {
        "ssd_variance_fraction": [(row["ssd_cov"] ** 2 / row["ssd_var"], row["logratio_var"]) for row in asked]
    }
