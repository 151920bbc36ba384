"""The candidates for the next token that the page shows: of both models, before and after truncation.

Shape legend: N positions of one trace, K length of the stored top lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .tokens import TokenTable

TOP_SHOWN = 8
ALWAYS_SHOWN = 3
VISIBLE = 0.0005


def candidates(
    table: pa.Table,
    tokens: TokenTable,
    train: dict[str, Any] | None,
    decoding: dict[str, Any] | None,
    wanted_N: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns of the union of both models' first TOP_SHOWN, in the baseline's order, at the positions `wanted_N`.

    ``count`` candidates belong to each position, and the first ``kept`` of them survive the truncation that the
    training samples were drawn with (NaN where that cannot be derived). Beyond each model's first ALWAYS_SHOWN,
    a candidate must reach VISIBLE in one of the models. Of each candidate its ``token`` (a place in the table of
    texts), its probabilities ``a`` and ``b``, and ``inA`` and ``inB``: 1 where the model can draw it at `decoding`.
    ``massA`` and ``massB`` of each position are the sum of p^(1/T) over all tokens that can be drawn (NaN where that
    cannot be derived): a candidate is drawn with probability p^(1/T) over it.
    """
    ids = {side: wide(table, f"{side}_top_ids").tolist() for side in "ab"}
    support = truncated(wide(table, "a_top_logprobs"), train)
    drawn = {side: truncated(wide(table, f"{side}_top_logprobs"), decoding) for side in "ab"}
    heads = [
        (ids[side], *(np.exp(wide(table, name)[:, :TOP_SHOWN].astype(np.float64)).tolist() for name in names))
        for side, names in (("a", ("a_top_logprobs", "b_at_a_top")), ("b", ("a_at_b_top", "b_top_logprobs")))
    ]
    flat: dict[str, list[float]] = {
        name: [] for name in ("count", "kept", *(f"candidates.{one}" for one in ("token", "a", "b", "inA", "inB")))
    }
    for n in range(table.num_rows):
        rank = {token: place for place, token in enumerate(ids["a"][n])}
        union = {
            token: (p_a, p_b)
            for own, at_a, at_b in heads
            for place, (token, p_a, p_b) in enumerate(zip(own[n], at_a[n], at_b[n], strict=False))
            if wanted_N[n] and token >= 0 and (place < ALWAYS_SHOWN or max(p_a, p_b) >= VISIBLE)
        }
        ranked = sorted(union.items(), key=lambda item: (rank.get(item[0], len(rank)), -item[1][0]))
        flat["count"].append(len(ranked))
        flat["kept"].append(np.nan if support is None else sum(rank.get(t, len(rank)) < support[0][n] for t in union))
        flat["candidates.token"] += [tokens.index(token) for token, _ in ranked]
        flat["candidates.a"] += [p_a for _, (p_a, _) in ranked]
        flat["candidates.b"] += [p_b for _, (_, p_b) in ranked]
        for side, possible in drawn.items():
            able = set(ids[side][n][: possible[0][n]]) if possible else set()
            flat[f"candidates.in{side.upper()}"] += [token in able for token, _ in ranked]
    unknown_N = np.full(table.num_rows, np.nan)
    mass = {f"mass{side.upper()}": possible[1] if possible else unknown_N for side, possible in drawn.items()}
    return {name: np.array(values, np.float64) for name, values in flat.items()} | mass


def truncated(top_logprobs_NK: np.ndarray, setting: dict[str, Any] | None) -> tuple[list[int], np.ndarray] | None:
    """How many of its most likely tokens a model can draw at each of N positions, and the sum of p^(1/T) over them.

    None where the setting is unknown or keeps more tokens than the top lists hold.
    """
    top_k = (setting or {}).get("top_k", 0)
    if setting is None or not 1 <= top_k <= top_logprobs_NK.shape[1]:
        return None
    logits_NK = top_logprobs_NK[:, :top_k].astype(np.float64) / setting["temperature"]
    possible_N = np.isfinite(logits_NK).sum(1)
    weights_NK = np.exp(np.nan_to_num(logits_NK, nan=-np.inf))
    mass_NK = weights_NK.cumsum(1)
    if setting["top_p"] < 1:
        reached_NK = mass_NK / np.maximum(mass_NK[:, -1:], 1e-300)
        possible_N = np.minimum((reached_NK < setting["top_p"]).sum(1) + 1, possible_N)
    return possible_N.tolist(), np.where(possible_N > 0, mass_NK[np.arange(len(mass_NK)), possible_N - 1], np.nan)


def wide(table: pa.Table, name: str) -> np.ndarray:
    """[N, K] of a column of lists."""
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(table.num_rows, -1)
