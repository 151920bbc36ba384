"""Traces together in one row of tokens, none reading another.

Whatever passes along a row is computed a trace at a time: attention, so that a row costs the sum of its traces' squares
and needs no mask, and the state of linear attention. Whether that keeps the traces of a model apart is tried out before
it is relied on.

Shape legend: B rows, L tokens of a row, h heads, d head size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "sdpa_of_each_trace"
# Layers whose mask the attention below knows; others (chunked attention, say) keep the mask that transformers makes.
_KNOWN = {"full_attention", "sliding_attention", "linear_attention"}
_TRIAL = (9, 14, 5)
"""tokens of the traces that packing is tried on"""


def separate(network: Any) -> None:
    """Let `network`, a causal LM of transformers, take rows of several traces: ``trace_lengths=[...]`` and positions
    that begin again at 0. Without lengths each row is one trace, perhaps padded to its right.

    flash-attention, which has kernels for this, and models with other kinds of layers keep their own attention.
    """
    kinds = getattr(network.config.get_text_config(), "layer_types", None) or ["full_attention"]
    if network.config._attn_implementation == "sdpa" and set(kinds) <= _KNOWN:
        AttentionInterface.register(_NAME, _attention)
        network.set_attn_implementation(_NAME)
    for module in network.modules():
        if hasattr(module, "linear_attn"):
            _separate_state(module.linear_attn)


@torch.no_grad()
def packs_exactly(network: Any) -> bool:
    """Whether traces packed into a row keep the hidden states that they have alone.

    Up to rounding, and to the last bit whatever the others say: of one shape the arithmetic is the same, so that any
    difference is a leak. (A mixture of experts computes rows in other company then, and is taken for a leak too.)
    """
    weight = network.get_output_embeddings().weight
    chooser = torch.Generator().manual_seed(0)
    ids = [torch.randint(weight.shape[0], (1, length), generator=chooser).to(weight.device) for length in _TRIAL]
    others = [(one + 1) % weight.shape[0] for one in ids]
    was_training = network.training
    network.eval()
    row = _hidden(network, ids)
    alone_LH = torch.cat([_hidden(network, [one])[0] for one in ids])
    kept = all(
        torch.equal(_hidden(network, [*others[:i], one, *others[i + 1 :]])[i], row[i]) for i, one in enumerate(ids)
    )
    network.train(was_training)
    rounding = 1e-4 if alone_LH.dtype == torch.float32 else 5e-2
    return kept and bool((torch.cat(row) - alone_LH).abs().max() <= rounding * alone_LH.abs().max())


def placed(lengths: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a packed row of traces of these lengths needs beside its tokens: position_ids [1, L] and `trace_lengths`."""
    position_ids = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    return {"position_ids": position_ids, "trace_lengths": tuple(lengths)}


def hidden(network: Any, input_ids_BL: Tensor, **placed: Any) -> Tensor:
    """[B, L, H]: last hidden states. placed: as the function of that name has it, nothing for rows of one trace."""
    if placed and "flash" in network.config._attn_implementation:  # in its kernels' own words too
        lengths = placed["trace_lengths"]
        ends = torch.tensor([0, *lengths], device=input_ids_BL.device).cumsum(0).to(torch.int32)
        placed |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        placed |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    found: Tensor = network.base_model(input_ids=input_ids_BL, use_cache=False, **placed).last_hidden_state
    return found


def _hidden(network: Any, ids: list[Tensor]) -> tuple[Tensor, ...]:
    """[l, H] of each trace in a row of them."""
    lengths = [one.shape[1] for one in ids]
    return hidden(network, torch.cat(ids, 1), **placed(lengths, ids[0].device))[0].split(lengths)


def _attention(
    module: Any,
    query_BhLd: Tensor,
    key_BhLd: Tensor,
    value_BhLd: Tensor,
    attention_mask: None,
    trace_lengths: Sequence[int] | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """[B, L, h, d], causal, within each trace."""
    spans = [query_BhLd.shape[2]] if trace_lengths is None else list(trace_lengths)
    parts = [x.split(spans, 2) for x in (query_BhLd, key_BhLd, value_BhLd)]
    found = [
        sdpa_attention_forward(module, q, k, v, _window(q, sliding_window), **rest)[0]
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(found, 1) if len(found) > 1 else found[0], None


def _window(query_Bhld: Tensor, width: int | None) -> Tensor | None:
    """The causal mask of a sliding window; None where it reaches over the whole trace."""
    length = query_Bhld.shape[2]
    if width is None or length <= width:
        return None
    place = torch.arange(length, device=query_Bhld.device)
    back = place[:, None] - place[None, :]
    return ((back >= 0) & (back < width))[None, None]


def _separate_state(module: Any) -> None:
    whole = module.forward

    def forward(hidden_states: Tensor, *, trace_lengths: Sequence[int] | None = None, **rest: Any) -> Tensor:
        if trace_lengths is None or len(trace_lengths) == 1:
            return whole(hidden_states, **rest)
        return torch.cat([whole(one, **rest) for one in hidden_states.split(list(trace_lengths), 1)], 1)

    module.forward = forward
