"""A small run directory as a probe leaves it: real ``probe_stats`` on made-up logits over a made-up vocabulary.

Shape legend: N positions, V vocabulary.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats
from ssdfast.probing.table import gather
from ssdfast.run_dir import schema_stamp

SPEC = ProbeSpec(20, eval_sampling=SamplingParams(1.0, 20, 0.95), train_sampling=SamplingParams(1.1, 20, 0.95))
PASSAGE = re.findall(
    r"\n+| ?(?:</?think>|[a-z]+|[0-9]|[^\w\s]+)",
    "<think>\nLet me think. We need the number of pairs (x, y) with x + y = 12.\nWait, x and y must be positive, so x "
    "can be 1, 2, ..., 11.\n\nBut the order matters, so there are 11 pairs.\n</think>\n\nThe answer is \\boxed{11}.",
    re.IGNORECASE,
)
WORDS = [
    "",
    "\t",
    "  ",
    "{",
    "Hmm",
    " Actually",
    "So",
    " Then",
    "日本",
    "é",
    "🙂",
    " however",
    " Let",
    "Now",
    " thus",
    ";",
    " *",
    "/",
    "-",
]
NUMBERS = (
    "kl_trained_base",
    "kl_base_trained",
    "js",
    "ssd_alignment",
    "delta_top1_prob",
    "delta_prob_at_base_top1",
    "delta_nucleus_size",
    "delta_tail_mass",
    "delta_entropy",
)


def vocabulary(size: int = 160) -> list[str]:
    words = list(dict.fromkeys([*PASSAGE, *WORDS]))
    return words + [f" word{i}" for i in range(size - len(words))]


def write_run(
    run_dir: Path, problems: int = 6, length: int = 120, texts: list[str] | None = None, seed: int = 3
) -> Path:
    """Traces of two generators for each problem, in the token ids of ``vocabulary()``; returns run_dir."""
    texts = texts or vocabulary()
    place = {text: i for i, text in enumerate(vocabulary())}
    passage = [place[piece] for piece in PASSAGE]
    generator = torch.Generator().manual_seed(seed)
    (run_dir / "positions").mkdir(parents=True)
    tables = []
    for problem in range(problems):
        pair = [
            _trace(f"problem-{problem}", label, passage, length, len(texts), generator)
            for label in ("baseline", "trained")
        ]
        tables.append(pa.concat_tables(pair))
        pq.write_table(tables[-1], run_dir / "positions" / f"shard-{problem:05d}.parquet")
    table = pa.concat_tables(tables)
    (run_dir / "vocabulary.json").write_text(
        json.dumps(schema_stamp() | {str(i): text for i, text in enumerate(texts)})
    )
    (run_dir / "summary.json").write_text(json.dumps(schema_stamp() | _summary(table), allow_nan=False))
    return run_dir


def _trace(problem: str, label: str, passage: list[int], n: int, v: int, generator: torch.Generator) -> pa.Table:
    likely_N = torch.tensor([passage[i % len(passage)] for i in range(n)])
    a_NV = torch.randn(n, v, generator=generator) * 1.3
    rival_N = torch.randint(0, v, (n,), generator=generator)
    sureness_N = torch.multinomial(torch.tensor([0.08, 0.2, 0.17, 0.55]), n, replacement=True, generator=generator)
    a_NV[torch.arange(n), rival_N] += torch.tensor([1.0, 8.5, 5.5, 4.0])[sureness_N]
    a_NV[torch.arange(n), likely_N] += torch.tensor([2.0, 8.0, 7.0, 12.0])[sureness_N]
    # Sharpening, as self-distillation predicts, and a shift of another kind on top.
    noise_N1 = torch.rand(n, 1, generator=generator) ** 4
    b_NV = a_NV * (1 + 0.2 * torch.rand(n, 1, generator=generator)) + noise_N1 * torch.randn(n, v, generator=generator)
    token_N = torch.multinomial((a_NV if label == "baseline" else b_NV).softmax(1), 1, generator=generator)[:, 0]
    stats = probe_stats(a_NV, b_NV, token_N, SPEC, backend="reference")

    columns: dict[str, pa.Array] = {
        "trace_id": pa.array([f"{problem}#0"] * n),
        "problem_id": pa.array([problem] * n),
        "trace_source": pa.array([label] * n),
        "position": pa.array(range(n), pa.int32()),
        "token_id": pa.array(token_N.tolist(), pa.int32()),
    }
    columns |= {name: _arrow(torch.from_numpy(column)) for name, column in gather([stats]).items() if column.size}
    assert stats.trained
    top_a_N, top_b_N = stats.base.top_ids[:, 0], stats.trained.top_ids[:, 0]
    turning = torch.tensor(
        [i for i, text in enumerate(vocabulary()) if text.strip() in ("Wait", "But", "Hmm", "Actually")]
    )
    columns["position_class"] = pa.array(_classes(stats.base)).dictionary_encode()
    columns["top1_changed"] = pa.array((top_a_N != top_b_N).tolist())
    columns["self_correction"] = pa.array((torch.isin(top_a_N, turning) | torch.isin(token_N, turning)).tolist())
    return pa.table(columns)


def _arrow(column: torch.Tensor) -> pa.Array:
    kind = pa.float32() if column.is_floating_point() else pa.int32()
    flat = pa.array(column.reshape(-1).numpy(), kind, from_pandas=False)
    return flat if column.dim() == 1 else pa.FixedSizeListArray.from_arrays(flat, column[0].numel())


def _classes(a) -> list[str]:
    def one(first: float, second: float, nucleus: int, tail: float) -> str:
        if first >= 0.5 and nucleus <= 5 and tail <= 0.01:
            return "lock"
        if first < 0.5 and tail > 0.10:
            return "diffuse"
        return "fork" if first < 0.5 and second >= first / 4 else "mixed"

    top_N2 = a.top_logprobs[:, :2].exp()
    return [one(*row) for row in zip(*top_N2.T.tolist(), a.nucleus_size.tolist(), a.tail_mass.tolist(), strict=True)]


def _summary(table: pa.Table) -> dict:
    numbers = {
        name: table[name].to_numpy()
        for name in ("kl_trained_base", "kl_base_trained", "js", "ssd_alignment", "ssd_cov", "ssd_var", "logratio_var")
    }
    first = {m: np.stack(table[f"{m}_top_logprobs"].to_pylist())[:, 0] for m in ("base", "trained")}
    at_base = np.stack(table["trained_logprobs_at_base_top"].to_pylist())[:, 0]
    numbers["delta_top1_prob"] = np.exp(first["trained"]) - np.exp(first["base"])
    numbers["delta_prob_at_base_top1"] = np.exp(at_base) - np.exp(first["base"])
    for name in ("nucleus_size", "tail_mass", "entropy"):
        numbers[f"delta_{name}"] = table[f"trained_{name}"].to_numpy() - table[f"base_{name}"].to_numpy()
    kind, label = np.array(table["position_class"].to_pylist()), np.array(table["trace_source"].to_pylist())
    top1_changed, turning = np.array(table["top1_changed"].to_pylist()), np.array(table["self_correction"].to_pylist())
    trace = np.unique(np.char.add(label, table["trace_id"].to_pylist()), return_inverse=True)[1]

    def entry(inside: np.ndarray) -> dict:
        return _entry(inside, numbers, trace)

    def by_position_class(inside: np.ndarray) -> dict:
        return {name: entry(inside & (kind == name)) for name in ("lock", "fork", "diffuse", "mixed")}

    everywhere, lock = np.ones(len(kind), bool), kind == "lock"
    trace_sources = np.unique(label)
    return {
        "positions": len(kind), "traces": int(trace.max()) + 1, "invalid": 0,
        "trace_sources": {str(name): int((label == name).sum()) for name in trace_sources},
        "all": entry(everywhere), "by_position_class": by_position_class(everywhere),
        "by_lock_kind": {"strict": entry(lock & ~top1_changed), "top1_changed": entry(lock & top1_changed),
                         "self_correction": entry(lock & turning)},
        "by_trace_source": {
            str(x): {"all": entry(label == x), "by_position_class": by_position_class(label == x)}
            for x in trace_sources
        },
        "settings": {
            "baseline": "base", "trained": "trained", "traces": ["traces"],
            "train_sampling": {"temperature": 1.1, "top_k": 20, "top_p": 0.95}, "top_logprobs": 20,
            "eval_sampling": {"temperature": 1.0, "top_k": 20, "top_p": 0.95},
        },
        "token_classes": ["other"], "eos_ids": [], "logits": "", "left_out": {}, "train_sampling_origin": "",
        "failed": [], "selected": {"traces": {}, "positions": 0, "strata": []},
    }  # fmt: skip


def _entry(inside: np.ndarray, numbers: dict[str, np.ndarray], trace: np.ndarray) -> dict:
    """Pooled means with 95 % intervals from 200 resamples of whole traces."""
    draws = np.random.default_rng(0).multinomial(trace.max() + 1, np.full(trace.max() + 1, 1 / (trace.max() + 1)), 200)
    weights = np.vstack([np.ones(trace.max() + 1), draws])[:, trace[inside]]

    def ratio(over: np.ndarray, under: np.ndarray) -> dict:
        keep = np.isfinite(over) & np.isfinite(under)
        if not keep.any() or not under[keep].any():
            return {"value": None, "ci_low": None, "ci_high": None}
        with np.errstate(invalid="ignore"):
            values = (weights[:, keep] @ over[keep]) / (weights[:, keep] @ under[keep])
        low, high = np.nanquantile(values[1:], [0.025, 0.975])
        return {"value": float(values[0]), "ci_low": float(low), "ci_high": float(high)}

    mine = {name: column[inside].astype(float) for name, column in numbers.items()}
    one = np.ones(int(inside.sum()))
    with np.errstate(invalid="ignore", divide="ignore"):
        along = mine["ssd_cov"] ** 2 / mine["ssd_var"]
    return {
        "positions": int(inside.sum()), "position_fraction": float(inside.mean()),
        **{name: ratio(mine[name], one) for name in NUMBERS},
        "ssd_variance_fraction": ratio(along, mine["logratio_var"]),
    }  # fmt: skip
