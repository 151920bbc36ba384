"""The candidates for the next token on the page: of both models, before and after truncation.

Shape legend: N positions of one trace, K length of the stored top lists.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ..config import SamplingParams
from ..sampling_distribution import in_top_p
from .tokens import TokenTable

TOP_SHOWN = 8
ALWAYS_SHOWN = 3
VISIBLE = 0.0005
MODELS = ("base", "trained")


def candidates(
    table: pa.Table,
    tokens: TokenTable,
    train_sampling: SamplingParams,
    eval_sampling: SamplingParams,
    detailed_N: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns of the union of both models' first TOP_SHOWN, in the baseline's order, at the positions `detailed_N`.

    ``count`` candidates belong to each position, and the first ``kept`` of them survive the truncation of the training
    samples (NaN where that is unknown). Beyond each model's first ALWAYS_SHOWN, a candidate must reach VISIBLE in one
    of the models. For each candidate its ``token`` (a place in the table of texts), its probabilities ``base`` and
    ``trained``, and ``inBase`` and ``inTrained``: 1 where the model can sample it at `eval_sampling`. ``baseMass`` and
    ``trainedMass`` of each position are the sum of p^(1/T) over all tokens that can be sampled (NaN where that is
    unknown): a candidate is sampled with probability p^(1/T) over this sum.
    """
    ids = {model: list_column(table, f"{model}_top_ids").tolist() for model in MODELS}
    support = truncate(list_column(table, "base_top_logprobs"), train_sampling)
    supports = {model: truncate(list_column(table, f"{model}_top_logprobs"), eval_sampling) for model in MODELS}
    heads = [
        (ids[model], *(np.exp(list_column(table, name)[:, :TOP_SHOWN].astype(np.float64)).tolist() for name in names))
        for model, names in (
            ("base", ("base_top_logprobs", "trained_logprobs_at_base_top")),
            ("trained", ("base_logprobs_at_trained_top", "trained_top_logprobs")),
        )
    ]
    columns = ("token", "base", "trained", "inBase", "inTrained")
    flat: dict[str, list[float]] = {
        name: [] for name in ("count", "kept", *(f"candidates.{column}" for column in columns))
    }
    for n in range(table.num_rows):
        rank = {token: place for place, token in enumerate(ids["base"][n])}
        union = {
            token: (p_base, p_trained)
            for own, base, trained in heads
            for place, (token, p_base, p_trained) in enumerate(zip(own[n], base[n], trained[n], strict=False))
            if detailed_N[n] and token >= 0 and (place < ALWAYS_SHOWN or max(p_base, p_trained) >= VISIBLE)
        }
        ranked = sorted(union.items(), key=lambda item: (rank.get(item[0], len(rank)), -item[1][0]))
        flat["count"].append(len(ranked))
        flat["kept"].append(np.nan if support is None else sum(rank.get(t, len(rank)) < support[0][n] for t in union))
        flat["candidates.token"] += [tokens.index(token) for token, _ in ranked]
        flat["candidates.base"] += [p_base for _, (p_base, _) in ranked]
        flat["candidates.trained"] += [p_trained for _, (_, p_trained) in ranked]
        for model, model_support in supports.items():
            inside = set(ids[model][n][: model_support[0][n]]) if model_support else set()
            flat[f"candidates.in{model.capitalize()}"] += [token in inside for token, _ in ranked]
    unknown_N = np.full(table.num_rows, np.nan)
    mass = {f"{model}Mass": pair[1] if pair else unknown_N for model, pair in supports.items()}
    return {name: np.array(values, np.float64) for name, values in flat.items()} | mass


def truncate(top_logprobs_NK: np.ndarray, sampling: SamplingParams) -> tuple[list[int], np.ndarray] | None:
    """The number of tokens that a model can sample at each of N positions, and the sum of p^(1/T) over them.

    None where the sampling parameters allow more tokens than the top lists hold.
    """
    top_k = sampling.top_k
    if not 1 <= top_k <= top_logprobs_NK.shape[1]:
        return None
    logits_NK = top_logprobs_NK[:, :top_k].astype(np.float64) / sampling.temperature
    size_N = np.isfinite(logits_NK).sum(1)
    weights_NK = np.exp(np.nan_to_num(logits_NK, nan=-np.inf))
    mass_NK = weights_NK.cumsum(1)
    if sampling.top_p < 1:
        fraction_NK = mass_NK / np.maximum(mass_NK[:, -1:], 1e-300)
        before_NK = np.pad(fraction_NK[:, :-1], ((0, 0), (1, 0)))
        size_N = np.minimum(in_top_p(before_NK, sampling.top_p).sum(1), size_N)
    return size_N.tolist(), np.where(size_N > 0, mass_NK[np.arange(len(mass_NK)), size_N - 1], np.nan)


def list_column(table: pa.Table, name: str) -> np.ndarray:
    """[N, K] of a column of lists."""
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(table.num_rows, -1)
