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
MORE = ("token", "base", "trained", "inBase", "inTrained")
"""what there is of each of the candidates that come after the baseline's"""


def base_candidates(
    table: pa.Table,
    tokens: TokenTable,
    train_sampling: SamplingParams,
    eval_sampling: SamplingParams,
    detailed_N: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns of the baseline's likely tokens, in its order, at the positions `detailed_N`: the same for every trained
    model.

    ``count`` candidates belong to each position, and the first ``kept`` of them survive the truncation of the training
    samples (NaN where that is unknown). Beyond the first ALWAYS_SHOWN, one must reach VISIBLE. For each its ``token``
    (a place in the table of texts), its probability ``base``, and ``inBase``: 1 where the baseline can sample it at
    `eval_sampling`. ``baseMass`` of each position is the sum of p^(1/T) over all tokens that can be sampled (NaN where
    that is unknown): a candidate is sampled with probability p^(1/T) over this sum.
    """
    ids = list_column(table, "base_top_ids").tolist()
    logprobs_NK = list_column(table, "base_top_logprobs")
    p_N = np.exp(logprobs_NK[:, :TOP_SHOWN].astype(np.float64)).tolist()
    support, decoded = truncate(logprobs_NK, train_sampling), truncate(logprobs_NK, eval_sampling)
    flat: dict[str, list[float]] = {
        name: [] for name in ("count", "kept", *map(_of_candidates, ("token", "base", "inBase")))
    }
    for n in range(table.num_rows):
        size = _shown(ids[n], p_N[n]) if detailed_N[n] else 0
        flat["count"].append(size)
        flat["kept"].append(np.nan if support is None else min(size, support[0][n]))
        flat["candidates.token"] += [tokens.index(token) for token in ids[n][:size]]
        flat["candidates.base"] += p_N[n][:size]
        flat["candidates.inBase"] += [decoded is not None and place < decoded[0][n] for place in range(size)]
    mass_N = decoded[1] if decoded else np.full(table.num_rows, np.nan)
    return {name: np.array(values, np.float64) for name, values in flat.items()} | {"baseMass": mass_N}


def trained_candidates(
    table: pa.Table,
    tokens: TokenTable,
    train_sampling: SamplingParams,
    eval_sampling: SamplingParams,
    detailed_N: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns of the same candidates under the trained model, and of more tokens that it finds likely.

    Each of `base_candidates` has its probability ``trained``, and ``inTrained``. ``more.count`` tokens come after them,
    in the baseline's order, of which ``more.kept`` survive the truncation of the training samples: those of the trained
    model's first ALWAYS_SHOWN, and of both models' first TOP_SHOWN where one of the models reaches VISIBLE.
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
    names = (*map(_of_candidates, ("trained", "inTrained")), "more.count", "more.kept")
    flat: dict[str, list[float]] = {name: [] for name in (*names, *(f"more.{name}" for name in MORE))}
    for n in range(table.num_rows):
        size = _shown(ids["base"][n], heads[0][1][n]) if detailed_N[n] else 0
        listed = ids["base"][n][:size]
        rank = {token: place for place, token in enumerate(ids["base"][n])}
        union = {
            token: (p_base, p_trained)
            for own, base, trained in heads
            for place, (token, p_base, p_trained) in enumerate(zip(own[n], base[n], trained[n], strict=False))
            if detailed_N[n] and token >= 0 and (place < ALWAYS_SHOWN or max(p_base, p_trained) >= VISIBLE)
        }
        more = sorted(
            ((token, *union[token]) for token in union if token not in listed),
            key=lambda item: (rank.get(item[0], len(rank)), -item[1]),
        )
        inside = {
            model: set(ids[model][n][: of_model[0][n]]) if of_model else set() for model, of_model in supports.items()
        }
        flat["candidates.trained"] += heads[0][2][n][:size]
        flat["candidates.inTrained"] += [token in inside["trained"] for token in listed]
        flat["more.count"].append(len(more))
        survivors = [token for token, *_ in more if support and rank.get(token, len(rank)) < support[0][n]]
        flat["more.kept"].append(np.nan if support is None else len(survivors))
        for token, p_base, p_trained in more:
            values = tokens.index(token), p_base, p_trained, token in inside["base"], token in inside["trained"]
            for name, value in zip(MORE, values, strict=True):
                flat[f"more.{name}"].append(value)
    trained = supports["trained"]
    mass_N = trained[1] if trained else np.full(table.num_rows, np.nan)
    return {name: np.array(values, np.float64) for name, values in flat.items()} | {"trainedMass": mass_N}


def _shown(ids: list[int], p: list[float]) -> int:
    """How many of the baseline's most likely tokens are shown whatever the trained model says."""
    return sum(token >= 0 and (i < ALWAYS_SHOWN or p[i] >= VISIBLE) for i, token in enumerate(ids[:TOP_SHOWN]))


def _of_candidates(name: str) -> str:
    return f"candidates.{name}"


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
