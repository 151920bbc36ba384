"""The probe as one would write it in an afternoon: ``straightforward.py BASELINE TRAINED TRACES OUT DTYPE CLASSES``.

For each trace, it computes both models' logits of the completion and every column of ``ssdfast probe`` from them in
eager torch, without regard for memory. It uses no code of ssdfast, so it is a check of the columns too.

Shape legend: N positions of a trace, V vocabulary, K = 20 likeliest tokens, S tokens of a support.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

TOP, TOP_P, TRAIN_T = 20, 0.95, 1.1
TEMPERATURES = (0.4, 0.7, 1.0, 1.4, 2.0)

Columns = dict[str, Tensor]


def one_model(logits_NV: Tensor, logp_NV: Tensor, token_N: Tensor, classes_V: Tensor) -> Columns:
    p_NV = logp_NV.exp()
    top_logprobs_NK, top_ids_NK = logp_NV.topk(TOP, dim=1)
    sorted_p_NV = p_NV.sort(dim=1, descending=True).values
    token_logprob_N1 = logp_NV.gather(1, token_N[:, None])
    _, log_q_NK, size_N = support(top_logprobs_NK, 1.0)
    q_NK = log_q_NK.exp()
    mass_NC = p_NV.new_zeros(len(p_NV), int(classes_V.max()) + 1).index_add_(1, classes_V, p_NV)
    return {
        "lse": logits_NV.logsumexp(1),
        "entropy": -(p_NV * logp_NV).sum(1),
        "token_logprob": token_logprob_N1[:, 0],
        "top_mass": sorted_p_NV[:, :TOP].sum(1),
        "tail_mass": sorted_p_NV[:, TOP:].sum(1),
        "support_entropy": -torch.where(q_NK > 0, q_NK * log_q_NK, 0.0).sum(1),
        "top_logprobs": top_logprobs_NK,
        "class_mass": mass_NC,
        "lse_T": torch.stack([(logits_NV / t).logsumexp(1) for t in TEMPERATURES], 1),
        "token_rank": (logp_NV > token_logprob_N1).sum(1),
        "nucleus_size": nucleus_size(sorted_p_NV),
        "support_size": size_N,
        "top_ids": top_ids_NK,
    }


def nucleus_size(sorted_p_NV: Tensor) -> Tensor:
    """In float64 and over its own total: float32 probabilities add up to 1 ± 1e-6, and a nucleus of hundreds of tokens
    would end one too early or too late."""
    sum_NV = sorted_p_NV.cumsum(1, dtype=torch.float64)
    return (sum_NV < TOP_P * sum_NV[:, -1:]).sum(1) + 1


def support(top_logprobs_NK: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which of the likeliest tokens top-k and top-p keep, their log-probabilities after it, and their number."""
    p_NK = (top_logprobs_NK / temperature).softmax(1)
    size_N = (p_NK.cumsum(1) < TOP_P).sum(1) + 1
    inside_NK = torch.arange(TOP) < size_N[:, None]
    return inside_NK, (top_logprobs_NK / temperature).masked_fill(~inside_NK, -torch.inf).log_softmax(1), size_N


def pair(a: Columns, b: Columns, logp_a_NV: Tensor, logp_b_NV: Tensor) -> Columns:
    p_NV, r_NV = logp_a_NV.exp(), logp_b_NV.exp()
    delta_NV = logp_b_NV - logp_a_NV
    kl_ab_N = -(p_NV * delta_NV).sum(1)
    log_mean_NV = torch.logaddexp(logp_a_NV, logp_b_NV) - np.log(2)
    js_N = ((p_NV * (logp_a_NV - log_mean_NV)).sum(1) + (r_NV * (logp_b_NV - log_mean_NV)).sum(1)) / 2
    ids_NK = a["top_ids"]
    b_at_a_NK, a_NK = logp_b_NV.gather(1, ids_NK), a["top_logprobs"]
    inside_NK, log_q_NK, _ = support(a_NK, TRAIN_T)
    q_NK = log_q_NK.exp()
    cov_N = (q_NK * (b_at_a_NK - a_NK)).sum(1) + kl_ab_N
    var_N = (q_NK**2 / a_NK.exp()).sum(1) - 1
    variance_N = (p_NV * delta_NV**2).sum(1) - kl_ab_N**2
    supports = [
        model["top_ids"].masked_fill(torch.arange(TOP) >= model["support_size"][:, None], none)
        for model, none in ((a, -1), (b, -2))
    ]
    return {
        "kl_base_trained": kl_ab_N,
        "kl_trained_base": (r_NV * delta_NV).sum(1),
        "js": js_N,
        "tv": (p_NV - r_NV).abs().sum(1) / 2,
        "logratio_var": variance_N,
        "ssd_cov": cov_N,
        "ssd_var": var_N,
        "ssd_alignment": cov_N / (variance_N * var_N).sqrt(),
        "trained_logprobs_at_base_top": b_at_a_NK,
        "base_logprobs_at_trained_top": logp_a_NV.gather(1, b["top_ids"]),
        **{f"base_{name}": x for name, x in on_support(a_NK, log_q_NK, inside_NK).items()},
        **{f"trained_{name}": x for name, x in on_support(b_at_a_NK, log_q_NK, inside_NK).items()},
        "support_overlap": (supports[0][:, :, None] == supports[1][:, None, :]).sum((1, 2)),
    }


def on_support(logp_NK: Tensor, log_q_NK: Tensor, inside_NK: Tensor) -> Columns:
    """One model's mass on the support, and the three terms of its loss there."""
    inside = logp_NK.masked_fill(~inside_NK, -torch.inf)
    log_r_NK = inside.log_softmax(1)
    log_power_N = (log_r_NK / TRAIN_T).logsumexp(1)
    gap_NK = torch.where(inside_NK, log_q_NK.exp() * (log_q_NK - log_r_NK / TRAIN_T + log_power_N[:, None]), 0.0)
    return {
        "kept_mass": inside.exp().sum(1),
        "ce_compression": -inside.logsumexp(1),
        "ce_reshaping": -TRAIN_T * log_power_N,
        "ce_alignment": TRAIN_T * gap_NK.sum(1),
    }


@torch.inference_mode()
def columns(models: list, prompt_ids: list[int], completion_ids: list[int], classes_V: Tensor) -> Columns:
    ids_1L = torch.tensor([prompt_ids + completion_ids])
    token_N = ids_1L[0, len(prompt_ids) :]
    logits = [m(input_ids=ids_1L).logits[0, len(prompt_ids) - 1 : -1].float() for m in models]
    logps = [x.log_softmax(1) for x in logits]
    a, b = (one_model(x, logp, token_N, classes_V) for x, logp in zip(logits, logps, strict=True))
    both = pair(a, b, *logps)
    return {f"base_{name}": x for name, x in a.items()} | {f"trained_{name}": x for name, x in b.items()} | both


def traces(path: Path) -> Iterator[tuple[str, list[int], list[int]]]:
    for file in sorted(path.glob("*.parquet")):
        for row in pq.read_table(file, columns=["problem_id", "sample", "prompt_ids", "completion_ids"]).to_pylist():
            yield f"{row['problem_id']}#{row['sample']}", row["prompt_ids"], row["completion_ids"]


def main() -> None:
    baseline, trained, source, out, dtype = sys.argv[1:6]
    classes_V = torch.from_numpy(np.load(sys.argv[6])).long()
    models = [
        AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval() for path in (baseline, trained)
    ]
    Path(out).mkdir(parents=True, exist_ok=True)
    for i, (trace_id, prompt_ids, completion_ids) in enumerate(traces(Path(source))):
        table = columns(models, prompt_ids, completion_ids, classes_V)
        arrays = {
            name: pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1).numpy()), x.shape[1])
            if x.dim() > 1
            else pa.array(x.numpy())
            for name, x in table.items()
        }
        arrays["trace_id"] = pa.array([trace_id] * len(completion_ids))
        arrays["position"] = pa.array(np.arange(len(completion_ids), dtype=np.int32))
        pq.write_table(pa.table(arrays), Path(out) / f"trace-{i:05d}.parquet")


if __name__ == "__main__":
    main()
