"""The benchmarks' gate, the page of their records, and the script for a machine with a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
MACHINE = {"device": "Testing, 2 cores", "threads": 2, "isa": "AVX2", "torch": "2.13.0", "commit": "abc", "date": "now"}
FIGURES = {"rows_timed": 16, "ms_per_row_pair": 0.1234, "peak_extra_bytes": 3 << 20, "fraction_of_roofline": 0.57}


@pytest.fixture(autouse=True)
def bench_modules(monkeypatch):
    """The files of bench/ import each other by bare names, as scripts do."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "bench")
    yield
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == ROOT / "bench":
            del sys.modules[name]


@pytest.fixture
def results(tmp_path):
    """The directory of a run in which one provider was fast, one slow and one wrong."""
    common = {"operation": "linear_probe_stats", "shape": [64, 1000, 32], **MACHINE}
    rows = [
        {**common, "provider": "slow one", "gives": "lse", **FIGURES, "ms_per_row_pair": 7.5},
        {**common, "provider": "ssdfast quick", "gives": "all", **FIGURES, "rows_timed": 64},
        {**common, "provider": "wrong one", "gives": "js", "left_out": "fails the gate: js is 0.1 from float64"},
    ]
    sizes = {"operation": "linear_probe_stats", "N": 16, "V": 1000, "H": 32, **MACHINE}
    grown = [
        {**sizes, "variable": variable, variable: value, "ms_per_row_pair": 0.25, "peak_extra_bytes": 1 << 20}
        for variable, values in (("N", (16, 64)), ("threads", (1, 2)))
        for value in values
    ]
    directory = tmp_path / "results"
    directory.mkdir()
    for name, lines in (("linear_probe_stats", rows), ("scaling", grown), ("claims-linear", [{"claim": "not ours"}])):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def run_report(results: Path, out: Path) -> dict[str, str]:
    script = [sys.executable, "bench/report.py", "--results", results, "--out", out]
    subprocess.run(script, cwd=ROOT, check=True, capture_output=True)
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}


def test_report_shows_what_was_recorded(results, tmp_path):
    files = run_report(results, tmp_path / "out")
    bars, scaling = "bench/linear_probe_stats-64x1000x32-avx2.svg", "bench/linear_probe_stats-scaling-avx2.svg"
    assert set(files) == {"benchmarks.md", bars, scaling}
    lines = files["benchmarks.md"].splitlines()
    quick, slow = (
        next(i for i, line in enumerate(lines) if f"| {name} |" in line) for name in ("ssdfast quick", "slow one")
    )
    assert lines[quick] == "| ssdfast quick | all | 0.123 ms | 3.0 MiB | 57% |"
    assert quick < slow
    assert "Timed on fewer rows: slow one on 16." in lines
    assert "| threads | 16 | 1,000 | 32 | 1 | 0.25 ms | 1.0 MiB |" in lines
    assert "ssdfast quick" in files[bars]
    assert "- Testing, 2 cores, AVX2: torch 2.13.0, " in files["benchmarks.md"]
    assert files["benchmarks.md"].count(f"]({bars})") == files["benchmarks.md"].count(f"]({scaling})") == 1


def test_page_holds_the_notes_and_the_claims_as_they_are(results, tmp_path):
    claim = {"claim": "extra memory", "value": 3.0, "bar": 64, "unit": "MB", "holds": True, **MACHINE}
    (results / "claims-linear.jsonl").write_text(json.dumps(claim) + "\n")
    notes = "## By hand\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    (results / "notes.md").write_text(notes + "\n")
    page = run_report(results, tmp_path / "out")["benchmarks.md"]
    assert "| extra memory | 64 MB | 3 MB |" in page.splitlines()
    assert notes in page


def test_each_machine_has_its_column_of_the_claims(results, tmp_path):
    def row(claim, value, isa, name="claims-linear", **of):
        holds = None if value is None else value <= 2
        line = {"claim": claim, "value": value, "bar": 2, "unit": "x", "holds": holds, **MACHINE, "isa": isa, **of}
        with (results / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    (results / "claims-linear.jsonl").unlink()
    row("both", 1.0, "AVX512")
    row("a GPU", None, "AVX512")
    row("nowhere", None, "AVX512")
    row("both", 3.0, "AVX2")
    row("new", 1.5, "AVX2")
    row("a GPU", 1.9, "AVX2", name="claims-linear-gpu", device="Some GPU")
    lines = run_report(results, tmp_path / "out")["benchmarks.md"].splitlines()
    device = MACHINE["device"]
    at = lines.index(f"| claim | bar | {device}, AVX512 | {device}, AVX2 | Some GPU |")
    assert lines[at + 2 : at + 6] == [
        "| both | 2 x | 1 x | 3 x, **missed** |  |", "| a GPU | 2 x |  |  | 1.9 x |",
        "| nowhere | 2 x | not measured |  |  |", "| new | 2 x |  | 1.5 x |  |",
    ]  # fmt: skip


def test_left_out_provider_has_no_figures(results, tmp_path):
    files = run_report(results, tmp_path / "out")
    about = [line for line in files["benchmarks.md"].splitlines() if "wrong one" in line]
    assert about == ["Left out: wrong one (js): fails the gate: js is 0.1 from float64."]
    assert not any("wrong one" in text for name, text in files.items() if name.endswith(".svg"))


def test_report_is_reproducible_and_leaves_nothing_stale(results, tmp_path):
    (tmp_path / "two" / "bench").mkdir(parents=True)
    (tmp_path / "two" / "bench" / "gone.svg").write_text("of an earlier run")
    assert run_report(results, tmp_path / "one") == run_report(results, tmp_path / "two")


def test_short_report_is_of_the_gpu_alone(results):
    def short() -> str:
        script = [sys.executable, "bench/report.py", "--short", "--results", results]
        return subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert short() == "nothing was measured on a GPU\n"
    (results / "linear_probe_stats.jsonl").rename(results / "linear_probe_stats-gpu.jsonl")
    claim = {"claim": "extra memory", "value": 300.0, "bar": 256, "unit": "MB", "holds": False, **MACHINE}
    (results / "claims-linear-gpu.jsonl").write_text(json.dumps(claim) + "\n")
    lines = short().splitlines()
    assert " ".join(lines[1].split()) == "ssdfast quick 0.123 ms 3.0 MiB 57% of the roofline"
    assert lines[3].split(maxsplit=2)[2] == "fails the gate: js is 0.1 from float64"
    assert " ".join(lines[4].split()) == "FAIL extra memory 300 (bar 256 MB)"


def test_provider_that_fails_its_gate_is_not_timed(monkeypatch):
    import provider

    class Inputs:
        def rows(self, n):
            return self

    def broken(x):
        raise MemoryError("none left")

    def gate(answer):
        assert answer == "right", "it is wrong"

    monkeypatch.setattr(provider, "_peak", lambda *args: 5)
    providers = [
        provider.Provider("good", "lse", lambda x: "right", gate),
        provider.Provider("bad", "lse", lambda x: "wrong", gate),
        provider.Provider("broken", "lse", broken, gate),
        provider.Provider("absent", "lse", broken, missing="it is not installed"),
    ]
    rows = {r["provider"]: r for r in provider.measured("lse", (4, 10), Inputs(), providers, floor=1e-9, seconds=0)}
    assert "left_out" not in rows["good"]
    assert rows["good"]["ms_per_row_pair"] > 0
    reasons = {name: r["left_out"] for name, r in rows.items() if name != "good"}
    assert reasons == {
        "bad": "fails the gate: it is wrong",
        "broken": "does not run: MemoryError: none left",
        "absent": "it is not installed",
    }
    assert not any("ms_per_row_pair" in rows[name] for name in reasons)


def test_record_says_where_and_keeps_its_own_figures(monkeypatch, tmp_path):
    import common

    monkeypatch.setattr(common, "RESULTS", tmp_path)
    rows = common.record("scaling", [{"threads": 1000, "ms_per_row_pair": 0.5}, {"N": 3}]).read_text().splitlines()
    first, second = map(json.loads, rows)
    assert (first["threads"], second["threads"]) == (1000, torch.get_num_threads())
    assert first.keys() >= {"device", "torch", "commit", "date", "ms_per_row_pair"}


def test_record_replaces_those_of_the_same_processor_alone(monkeypatch, tmp_path):
    import common

    monkeypatch.setattr(common, "RESULTS", tmp_path)
    elsewhere = [{**common.machine(), "isa": "another", "value": value} for value in (1, None)]
    (tmp_path / "claims.jsonl").write_text("".join(json.dumps(r) + "\n" for r in elsewhere))
    for value in (2, 3):
        path = common.record("claims", [{"value": value}])
    assert [json.loads(line)["value"] for line in path.read_text().splitlines()] == [1, 3]


def test_gate_tells_float32_logits_from_rounded_ones():
    import linear_probe_stats
    from inputs import hidden_pair

    x = hidden_pair(8, 3000, 64, device="cpu")
    by_name = {p.name: p for p in linear_probe_stats.providers(x)}
    # Of their own accord, and now and then, torch's softmax and products on a CPU with AMX miss the entropy by 3e-5.
    assert "token_logprob" not in by_name["TRL-style, chunked"].why_not(x)
    assert "token_logprob" not in by_name["eager torch, chunked"].why_not(x)
    assert "token_logprob" in by_name["TRL-style, chunked, bf16 logits"].why_not(x)


def test_page_names_other_packages_and_the_source_of_their_figures(results, tmp_path):
    page = run_report(results, tmp_path / "out")["benchmarks.md"]
    assert "| TRL | `selective_log_softmax_and_entropy` | logits | `token_logprob`, `entropy` |  |" in page.splitlines()
    assert "0.89 ms | H100" in page
    assert "trl/issues/7244" in page


def test_logits_of_the_inputs_are_exact_in_any_order():
    from inputs import hidden_pair

    x = hidden_pair(40, 300, 2560, device="cpu")
    for hidden, head in ((x.hidden_base_NH, x.head_base_VH), (x.hidden_trained_NH, x.head_trained_VH)):
        exact = hidden.double() @ head.double().T
        for order in (torch.arange(2560), torch.randperm(2560, generator=torch.Generator().manual_seed(0))):
            assert torch.equal((hidden[:, order].float() @ head[:, order].float().T).double(), exact)
    assert x.token_N.shape == (40,)


def test_the_mix_of_answers_is_varied_and_no_two_golds_are_alike():
    pytest.importorskip("math_verify")
    import evaluation

    rounds = evaluation.mix(100, 2)
    for pairs in rounds:
        assert {kind: sum(kind == other for other, _ in pairs) for kind in evaluation.KINDS} == dict.fromkeys(
            ("integers", "fractions", "sets", "intervals"), 100
        )
        assert 0.4 < sum(pair.correct for _, pair in pairs) / len(pairs) < 0.6
    every = [pair for pairs in rounds for _, pair in pairs]
    assert len({pair.gold for pair in every}) == len(every)
    assert not any(pair.gold.strip() == pair.answer.strip() for pair in every)


def test_answers_of_the_mix_are_graded_as_constructed():
    pytest.importorskip("math_verify")
    import evaluation

    from ssdfast.evaluation.answers.grade import equal

    pairs = [pair for _, pair in evaluation.mix(25, 1)[0]]
    assert [pair for pair in pairs if (equal(pair.gold, pair.answer) == "correct") != pair.correct] == []


def gpu_check(results: Path, **environment: str) -> subprocess.CompletedProcess:
    """Its results go elsewhere: it replaces those of the GPU."""
    env = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment}
    command = ["bench/gpu_check.sh", "--results", str(results)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_gpu_check_skips_where_there_is_no_gpu(tmp_path):
    done = gpu_check(tmp_path, HIP_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'reference'" in done.stdout  # the package loaded, from the copy
    assert "no GPU" in done.stdout


def test_gpu_check_goes_on_after_a_failure_and_says_so(tmp_path):
    done = gpu_check(tmp_path, PYTHON="false")
    assert done.returncode == 1
    steps = [line for line in done.stdout.splitlines() if "failed (1)" in line]
    assert len(steps) == 12
    assert steps[-1].startswith("profile")


def test_gpu_check_refuses_what_it_does_not_know():
    done = subprocess.run(["bench/gpu_check.sh", "--fast"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown option --fast" in done.stderr


def test_counters_of_a_profile_are_read_by_kernel():
    import profile_kernels

    metrics = list(profile_kernels.METRICS)
    names = ",".join(f'"{name}"' for name in ["ID", "Kernel Name", "Grid Size", *metrics])
    units = ",".join(
        f'"{unit}"' for unit in ["", "", "", "usecond", "inst", "Mbyte", "Kbyte", "register/thread", "", "%"]
    )
    lines = [f'"{i}","first_sweep","(8, 1, 1)","{1.5 + i}","1,000","2","3","40","8","50"' for i in range(3)]
    rows = profile_kernels.parsed("\n".join(["==PROF== Connected", names, units, *lines]))
    assert rows == [
        {"kernel": "first_sweep", "grid": "(8, 1, 1)", "launches": 3, "nanoseconds": 2500.0,
         "warp_instructions": 1000.0,
         "bytes_read": 2e6, "bytes_written": 3e3, "registers": 40.0, "programs": 8.0, "occupancy_percent": 50.0}
    ]  # fmt: skip


def test_the_straightforward_script_gives_the_same_columns(tmp_path):
    import straightforward

    from ssdfast import models
    from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats

    from . import tiny

    a, b = (models.load(path, "float32") for path in tiny.save_pair(tmp_path))
    prompt, completion = [3, 4, 5], [7, 8, 9, 10, 2, 2]
    classes_V = torch.arange(tiny.VOCABULARY, dtype=torch.uint8) % 5
    got = straightforward.columns([a.model, b.model], prompt, completion, classes_V.long())
    ids = torch.tensor([prompt + completion])
    with torch.inference_mode():
        logits = [m.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double() for m in (a, b)]
    spec = ProbeSpec(train_sampling=SamplingParams(1.1, 20, 0.95), token_class=classes_V, n_classes=5)
    want = probe_stats(*logits, torch.tensor(completion), spec, backend="reference")
    columns = {
        prefix + name: column.flatten(1) if column.dim() > 1 else column
        for prefix, group in (("base_", want.base), ("trained_", want.trained), ("", want.pair))
        for name, column in vars(group).items()
    }
    assert got.keys() == columns.keys()
    for name, column in columns.items():
        torch.testing.assert_close(got[name].double(), column.double(), rtol=1e-3, atol=1e-5, msg=name)
