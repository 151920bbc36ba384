"""What ``write_report`` assembles, and what it refuses."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats
from ssdfast.number_format import format_interval
from ssdfast.report import candidates, page_traces, write_report
from ssdfast.report.format_text import format_summary
from ssdfast.report.sanitize import MAX_CHARACTERS, embeddable_json, inert
from ssdfast.report.study_text import format_title
from ssdfast.run_dir import schema_stamp
from ssdfast.schemas import ArmResults, AttributionResults, Interval, Verdict
from tests.probe_summary import summary_without_numbers

from .synthetic import vocabulary, write_run
from .unpacking import columns_of

HOSTILE = [
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "{{script}}",
    "\u202egnp.exe\u2066",
    "\ud800 alone \udc00",
    "line\u2028para\u2029\x00\x1b[31m\u200b\ufeff\u00a0",
    "&lt;b&gt;",
    "y" * 100_000,
]


class _Page(HTMLParser):
    """Which elements a browser would see, with the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += text


def _data(path: Path) -> dict:
    return json.loads(_Page(path.read_text("utf-8")).scripts[0])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run", problems=3, length=60)


def test_page_is_alone_and_repeatable(run_dir):
    path = write_report(run_dir)
    first = path.read_bytes()
    page = _Page(first.decode("utf-8"))
    assert not [attrs for _, attrs in page.tags if {"src", "srcset", "action", "style"} & set(attrs)]
    links = [attrs["href"] for _, attrs in page.tags if "href" in attrs]
    assert links[0] == "#traces"
    assert {link.removeprefix("#") for link in links} <= {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert not re.search(rb"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", first)
    assert write_report(run_dir).read_bytes() == first
    assert not list(run_dir.glob(".report*"))


def test_columns_are_those_of_the_parts(run_dir):
    data = _data(write_report(run_dir))
    assert [(t["problem"], t["label"]) for t in data["traces"]] == [
        (f"problem-{i}", label) for i in range(3) for label in ("baseline", "trained")
    ]
    trace = data["traces"][3]
    columns = columns_of(data, trace)
    table = pq.read_table(run_dir / "positions" / "shard-00001.parquet")
    table = table.filter(pa.compute.equal(table["trace_source"], "trained"))
    texts = vocabulary()
    assert [data["tokens"]["texts"][i] for i in columns["token"]] == [texts[i] for i in table["token_id"].to_pylist()]
    # Half a unit, or half a hundredth of a decade below the least multiple.
    for name, column in (("kl", "kl_trained_base"), ("js", "js")):
        np.testing.assert_allclose(columns[name], table[column].to_numpy(), rtol=0.0116, atol=5.01e-4)
    np.testing.assert_allclose(
        columns["trained"]["entropy"], table["trained_entropy"].to_numpy(), rtol=0.0116, atol=5.01e-4
    )
    np.testing.assert_allclose(columns["alignment"], table["ssd_alignment"].to_numpy(), atol=5.01e-3)
    np.testing.assert_allclose(
        columns["base"]["probability"], np.exp(table["base_token_logprob"].to_numpy()), rtol=0.0116, atol=5.01e-5
    )
    assert columns["trained"]["nucleus"] == table["trained_nucleus_size"].to_pylist()
    assert columns["trained"]["rank"] == table["trained_token_rank"].to_pylist()
    kinds = ["lock", "fork", "diffuse", "mixed"]
    assert [kinds[code] for code in columns["class"]] == table["position_class"].to_pylist()
    assert (
        trace["kinds"]["lock"]
        == columns["class"].count(0)
        == trace["kinds"]["strict"] + trace["kinds"].get("top1_changed", 0)
    )


def test_candidates_are_the_visible_union_of_both_heads(run_dir):
    data = _data(write_report(run_dir))
    whole = columns_of(data, data["traces"][0])
    columns = whole["candidates"] | {"count": whole["count"]}
    rows = pq.read_table(run_dir / "positions" / "shard-00000.parquet").slice(0, 60).to_pylist()
    assert {row["trace_source"] for row in rows} == {"baseline"}
    ends = np.cumsum(columns["count"])
    for row, start, end in zip(rows, [0, *ends], ends, strict=False):
        ids = [data["tokens"]["ids"][i] for i in columns["token"][start:end]]
        pairs = [
            zip(
                row["base_top_ids"], row["base_top_logprobs"], row["trained_logprobs_at_base_top"], range(8),
                strict=False,
            ),
            zip(
                row["trained_top_ids"], row["base_logprobs_at_trained_top"], row["trained_top_logprobs"], range(8),
                strict=False,
            ),
        ]  # fmt: skip
        want = {
            token: (np.exp(log_a), np.exp(log_b))
            for head in pairs
            for token, log_a, log_b, place in head
            if place < 3 or max(log_a, log_b) >= np.log(0.0005)
        }
        assert set(ids) == set(want)
        assert [token for token in row["base_top_ids"] if token in want] == [t for t in ids if t in row["base_top_ids"]]
        got = list(zip(columns["base"][start:end], columns["trained"][start:end], strict=True))
        np.testing.assert_allclose(got, [want[token] for token in ids], rtol=0.0116, atol=5.01e-5)
    assert max(columns["count"]) > 8


@pytest.mark.parametrize(
    "train", [SamplingParams(1.1, 20, 0.95), SamplingParams(2.0, 7, 1.0), SamplingParams(0.5, 20, 0.6)]
)
def test_support_of_the_training_samples_is_that_of_the_probe(train):
    logits_NV = torch.randn(200, 90, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    spec = ProbeSpec(eval_sampling=train, train_sampling=train)
    stats = probe_stats(logits_NV, None, torch.zeros(200, dtype=torch.int64), spec, backend="reference")
    assert candidates.truncate(stats.base.top_logprobs.numpy(), train)[0] == stats.base.support_size.tolist()


@pytest.mark.parametrize("train", [SamplingParams(1.0, 0, 0.9), SamplingParams(1.0, 21, 1.0)])
def test_support_that_the_top_lists_do_not_hold_is_unknown(train):
    assert candidates.truncate(np.zeros((2, 20), np.float32), train) is None


def test_rows_without_finite_logits(tmp_path):
    run = write_run(tmp_path / "run", problems=1, length=12)
    part = run / "positions" / "shard-00000.parquet"
    table = pq.read_table(part)
    for name in table.column_names:
        if name in (
            "trace_id",
            "problem_id",
            "trace_source",
            "position",
            "token_id",
            "top1_changed",
            "self_correction",
        ):
            continue
        rows = table[name].to_pylist()
        if name == "position_class":
            rows[4] = None
        elif isinstance(rows[4], list):
            rows[4] = [-1 if isinstance(x, int) else float("nan") for x in rows[4]]
        else:
            rows[4] = -1 if isinstance(rows[4], int) else float("nan")
        rows[5] = float("inf") if name == "kl_trained_base" else rows[5]
        table = table.set_column(table.column_names.index(name), name, pa.array(rows, table.schema.field(name).type))
    pq.write_table(table, part)
    data = _data(write_report(run))
    columns = columns_of(data, data["traces"][0])
    assert columns["kl"][4:6] == [None, None]
    assert columns["count"][4] == 0
    assert columns["class"][4] == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(tmp_path, text):
    texts = vocabulary()
    texts[0] = text  # the first token of the passage
    path = write_report(write_run(tmp_path / "run", problems=1, length=30, texts=texts))
    page = _Page(path.read_text("utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in page.tags]
    assert page.scripts[0].isascii()
    assert not set("<>&") & set(page.scripts[0])
    data = json.loads(page.scripts[0])
    assert inert(text) in data["tokens"]["texts"]
    assert path.stat().st_size < 1_000_000


def test_inert():
    assert inert("a\u202eb\x07\ud800\u00a0 \n\t") == "a⟨U+202E⟩b⟨U+0007⟩⟨U+D800⟩⟨U+00A0⟩ \n\t"
    assert inert("naïve 日本 🙂") == "naïve 日本 🙂"
    assert inert("y" * 100_000) == "y" * MAX_CHARACTERS + f"… [{100_000 - MAX_CHARACTERS:,} more characters]"
    assert json.loads(embeddable_json({"</x>&\u2028": "é"})) == {"</x>&\u2028": "é"}


def test_draw_favours_no_label_and_repeats():
    keys = [("few", f"t{i}") for i in range(30)] + [("many", f"t{i}") for i in range(4000)]
    drawn = page_traces.sample_traces(keys)
    assert len(drawn) == len(set(drawn)) == page_traces.MAX_TRACES
    assert sum(label == "few" for label, _ in drawn) == 30
    assert drawn == page_traces.sample_traces(keys[::-1])
    places = [int(trace_id[1:]) for label, trace_id in drawn if label == "many"]
    assert 1500 < np.mean(places) < 2500
    balanced = page_traces.sample_traces([(label, f"t{i}") for label in "xy" for i in range(300)])
    assert sum(label == "x" for label, _ in balanced) == page_traces.MAX_TRACES // 2


def test_a_large_run_stays_below_ten_megabytes(tmp_path):
    """100,000 positions whose candidates are as random as they can be, from a vocabulary of 150,000."""
    run = write_run(tmp_path / "run", problems=1, length=500)
    template = pq.read_table(run / "positions" / "shard-00000.parquet").slice(0, 500)
    rng = np.random.default_rng(0)
    for part in range(20):
        table = template
        for place, field in enumerate(template.schema):
            if field.name.endswith("top_ids"):
                flat = pa.array(rng.integers(0, 150_000, 500 * 20), pa.int32())
            elif field.type == pa.list_(pa.float32(), 20):
                flat = pa.array(-rng.exponential(3, 500 * 20), pa.float32())
            else:
                continue
            table = table.set_column(place, field.name, pa.FixedSizeListArray.from_arrays(flat, 20))
        traces = [table.set_column(0, "trace_id", pa.array([f"t{part}-{i}"] * 500)) for i in range(10)]
        pq.write_table(pa.concat_tables(traces), run / "positions" / f"shard-{part:05d}.parquet")
    (run / "vocabulary.json").write_text(json.dumps(schema_stamp() | {str(i): f" token{i}" for i in range(150_000)}))
    path = write_report(run)
    data = _data(path)
    assert path.stat().st_size < 10_000_000
    assert len(data["traces"]) == 200
    # What it costs: quiet positions have no candidates.
    assert "that shifted most have candidates" in data["browser"]["leftOut"]
    columns = columns_of(data, data["traces"][0])
    order = sorted(range(500), key=lambda i: columns["kl"][i])
    assert columns["count"][order[-1]] > 0 == columns["count"][order[0]]


def test_a_trace_that_does_not_fit_leaves_nothing_behind(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", problems=2, length=40, texts=vocabulary(2000))
    whole = _data(write_report(run))
    monkeypatch.setattr(page_traces, "MAX_BYTES", len(whole["shared"][0] + whole["traces"][0]["packed"]))
    data = _data(write_report(run))
    assert 0 < len(data["traces"]) < len(whole["traces"]) == 4
    used = max(
        max(columns["candidates"]["token"] + columns["token"])
        for columns in (columns_of(data, trace) for trace in data["traces"])
    )
    assert len(data["tokens"]["texts"]) == len(data["tokens"]["ids"]) == used + 1


def _remove(name):
    return lambda run: (run / name).unlink()


def _write(name, text):
    return lambda run: (run / name).write_text(text)


def _drop_column(run):
    part = run / "positions" / "shard-00000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["js", "top1_changed"]), part)


def _twice(run):
    (run / "positions" / "shard-00009.parquet").write_bytes((run / "positions" / "shard-00000.parquet").read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("summary.json"), r"summary\.json is missing: run the probe first"),
        (_remove("vocabulary.json"), r"vocabulary\.json is missing"),
        (_remove("positions/shard-00000.parquet"), r"holds no shard-"),
        (_write("summary.json", "{"), r"summary\.json is not valid JSON"),
        (_write("summary.json", "[]"), r"summary\.json was written before schema versions"),
        (_write("summary.json", '{"schema_version": 1, "positions": 1}'), r"summary\.json: traces: Field required"),
        (_write("positions/shard-00000.parquet", "PAR1"), r"shard-00000\.parquet is not a readable Parquet file"),
        (_drop_column, r"shard-00000\.parquet has no column js, top1_changed"),
        (_twice, r"is in .*shard-00000\.parquet and in .*shard-00009\.parquet"),
    ],
)
def test_broken_inputs_are_named(tmp_path, damage, message):
    run = write_run(tmp_path / "run", problems=1, length=5)
    damage(run)
    with pytest.raises(ValueError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.0123, 0.0041, 0.0214), "+0.012 [0.004, 0.021]"),
        ((-0.001182, -0.001227, -0.001131), "−0.00118 [−0.00123, −0.00113]"),
        ((-0.0001, -0.005, 0.005), "0.000 [−0.005, 0.005]"),
        ((1.2e-7, 1.0e-7, 1.4e-7), "+1.2e−7 [1.0e−7, 1.4e−7]"),
        ((-14.1, -16.9, -11.2), "−14.1 [−16.9, −11.2]"),
        ((0.0, 0.0, 0.0), "0.000 [0.000, 0.000]"),
        ((0.5, None, None), "+0.500"),
        ((None, None, None), "undefined"),
    ],
)
def test_an_interval(numbers, words):
    assert format_interval(dict(zip(("value", "ci_low", "ci_high"), numbers, strict=True)), signed=True) == words


def _headline(position_fraction, alignment, invalid=0, kl=(0.02, 0.01, 0.03)):
    values = {"ssd_variance_fraction": position_fraction, "ssd_alignment": alignment, "kl_trained_base": kl}
    entry = {key: dict(zip(("value", "ci_low", "ci_high"), numbers, strict=True)) for key, numbers in values.items()}
    summary = summary_without_numbers({"baseline": "b", "trained": "t", "traces": ["t"]}, ["other"], [])
    changes = {
        "positions": 4160,
        "traces": 16,
        "invalid": invalid,
        "trace_sources": {"baseline": 4000, "trained": 160},
        "all": summary.all.model_copy(update={key: Interval(**numbers) for key, numbers in entry.items()}),
    }
    title, sentences = format_summary(summary.model_copy(update=changes))
    return title, " ".join(sentences)


def test_headline_says_what_the_numbers_say():
    title, text = _headline((0.277, 0.264, 0.29), (0.7, 0.6, 0.8))
    assert title == "28\u00a0% of the shift lies along what self-distillation predicts"
    for words in (
        "4,160 positions of 16 traces (4,000 in traces by baseline, 160 in traces by trained)",
        "0.020 [0.010, 0.030] nats",
    ):
        assert words in text
    assert "27.7\u00a0% [26.4, 29.0]" in text
    assert "+0.70 [0.60, 0.80]: toward" in text
    assert "control arm" in text
    assert "left out" not in text


def test_headline_of_a_move_away_of_none_and_of_invalid_positions():
    assert "points away" in _headline((0.3, 0.2, 0.4), (-0.5, -0.6, -0.4))[0]
    assert "no clear direction" in _headline((0.3, 0.2, 0.4), (0.0, -0.1, 0.1))[1]
    title, text = _headline((None, None, None), (None, None, None), invalid=3)
    assert title == "There is no shift that self-distillation could explain"
    assert "3 positions without finite logits are left out" in text
    assert "mean KL is not finite" in _headline((0.3, 0.2, 0.4), (0.5, 0.4, 0.6), kl=(None, None, None))[1]


@pytest.mark.parametrize(
    ("categories", "title"),
    [
        ({"ssd": "none", "ssd-soft": "ssd"}, "Only ssd-soft shows self-distillation beyond control"),
        ({"ssd": "ssd", "ssd-soft": "ssd"}, "ssd and ssd-soft show self-distillation beyond control"),
        (
            {"ssd": "ssd", "hot": "temperature"},
            "ssd shows self-distillation; hot shows a temperature change beyond control",
        ),
        ({"ssd": "ssd + eos_bias"}, "ssd shows self-distillation and an EOS bias beyond control"),
        ({"ssd": "none"}, "No arm shows an effect beyond control"),
        ({}, "There is only a control: add an arm to compare with it"),
    ],
)
def test_the_title_of_a_study_is_a_sentence_made_from_the_verdicts(categories, title):
    arms = {}
    for name, category in categories.items():
        components = [] if category == "none" else category.split(" + ")
        named = category if len(components) < 2 else "mixture"
        arms[name] = Verdict.model_construct(category=named, components=components, scope="recipes")
    assert format_title(_attribution(arms)) == title


def _attribution(verdicts, problems=50):
    arms = {name: ArmResults.model_construct(verdict=verdict) for name, verdict in verdicts.items()}
    arms["control"] = ArmResults.model_construct(verdict=None)
    return AttributionResults.model_construct(control="control", problems=problems, arms=arms)


def test_the_title_says_when_there_is_one_model_of_each_arm_or_too_few_problems():
    def title(category, components, scope):
        verdict = Verdict.model_construct(category=category, components=components, scope=scope)
        none = "undecided" if category == "undecided" else "none"
        other = Verdict.model_construct(category=none, components=[], scope=scope)
        return format_title(_attribution({"SSD": verdict, "hot": other}, problems=5))

    assert title("ssd", ["ssd"], "models") == "One model of each arm: only SSD shows self-distillation beyond control"
    assert title("none", [], "models") == "No trained model shows an effect beyond control"
    assert title("undecided", [], "recipes") == "Undecided: 5 problems are too few to compare the arms"
