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
    table: pa.Table, tokens: TokenTable, train: dict[str, Any] | None, decoding: dict[str, Any] | None
) -> dict[str, Any]:
    """Flat columns of the union of both models' first TOP_SHOWN, in the baseline's order.

    ``count`` candidates belong to each position, and the first ``kept`` of them survive the truncation that the
    training samples were drawn with (None where that cannot be derived). Beyond each model's first ALWAYS_SHOWN,
    a candidate must reach VISIBLE in one of the models. ``inA`` and ``inB`` have a 1 for each candidate that the model
    can draw at `decoding`, ``massA`` and ``massB`` of each position the sum of p^(1/T) over all those (None where
    they cannot be derived): a candidate is drawn with probability p^(1/T) over it.
    """
    a_ids, b_ids = wide(table, "a_top_ids").tolist(), wide(table, "b_top_ids").tolist()
    support = truncated(wide(table, "a_top_logprobs"), train)
    drawn = {side: truncated(wide(table, f"{side}_top_logprobs"), decoding) for side in "ab"}
    heads = [
        (ids, *(probabilities(wide(table, name)[:, :TOP_SHOWN]) for name in names))
        for ids, names in ((a_ids, ("a_top_logprobs", "b_at_a_top")), (b_ids, ("a_at_b_top", "b_top_logprobs")))
    ]
    flat: dict[str, list[Any]] = {"count": [], "kept": [], "token": [], "a": [], "b": [], "inA": [], "inB": []}
    for n in range(table.num_rows):
        rank = {token: place for place, token in enumerate(a_ids[n])}
        union = {
            token: (p_a, p_b)
            for ids, at_a, at_b in heads
            for place, (token, p_a, p_b) in enumerate(zip(ids[n], at_a[n], at_b[n], strict=False))
            if token >= 0 and (place < ALWAYS_SHOWN or max(p_a or 0, p_b or 0) >= VISIBLE)
        }
        ranked = sorted(union.items(), key=lambda item: (rank.get(item[0], len(rank)), -(item[1][0] or 0)))
        flat["count"].append(len(ranked))
        flat["token"] += [tokens.index(token) for token, _ in ranked]
        flat["a"] += [p_a for _, (p_a, _) in ranked]
        flat["b"] += [p_b for _, (_, p_b) in ranked]
        flat["kept"].append(None if support is None else sum(rank.get(t, len(rank)) < support[0][n] for t in union))
        for side, ids in (("A", a_ids), ("B", b_ids)):
            possible = drawn[side.lower()]
            able = set(ids[n][: possible[0][n]]) if possible else set()
            flat[f"in{side}"] += ["1" if token in able else "0" for token, _ in ranked]
    mass = {f"mass{side.upper()}": possible and rounded(possible[1], 4) for side, possible in drawn.items()}
    return {name: "".join(values) if name in ("inA", "inB") else values for name, values in flat.items()} | mass


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


def probabilities(logprobs: np.ndarray) -> Any:
    """Probabilities as lists of the array's shape: four decimals, or two digits below 0.001; None for NaN."""
    if logprobs.ndim == 2:
        flat, width = probabilities(logprobs.ravel()), logprobs.shape[1]
        return [flat[i : i + width] for i in range(0, len(flat), width)]
    exact = np.exp(logprobs.astype(np.float64))
    rounded = exact.round(4).tolist()
    return [
        r if p >= 0.001 else float(f"{p:.2g}") if p == p else None for p, r in zip(exact.tolist(), rounded, strict=True)
    ]


def rounded(values: np.ndarray, digits: int = 3) -> list[float | None]:
    """Significant digits; None for NaN and infinities."""
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in values.tolist()]
