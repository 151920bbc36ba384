"""Several traces in one row of tokens, none attending to another.

Whatever mixes positions of a row is computed per trace: attention, so that a row costs the sum of its traces' squares
and needs no mask, and the state of linear attention. Whether this keeps the traces of a model apart is tested on the
model before training relies on it.

Shape legend: B rows, L tokens of a row, l tokens of a trace, h heads, d head size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "sdpa_per_trace"
# Layers whose mask the attention below knows; others (chunked attention, say) keep the mask that transformers makes.
_KNOWN_LAYERS = {"full_attention", "sliding_attention", "linear_attention"}
_TRIAL_LENGTHS = (9, 14, 5)
"""tokens of the traces that packing is tested on"""


def isolate_traces(network: Any) -> None:
    """Let `network`, a causal LM of transformers, take rows of several traces: ``trace_lengths=[...]`` and positions
    that start at 0 for each trace. Without lengths each row is one trace, perhaps padded on the right.

    flash-attention, which has kernels for this, and models with other kinds of layers keep their own attention.
    """
    kinds = getattr(network.config.get_text_config(), "layer_types", None) or ["full_attention"]
    if network.config._attn_implementation == "sdpa" and set(kinds) <= _KNOWN_LAYERS:
        AttentionInterface.register(_NAME, _attention)
        network.set_attn_implementation(_NAME)
    for module in network.modules():
        if hasattr(module, "linear_attn"):
            _isolate_state(module.linear_attn)


@torch.no_grad()
def is_packing_exact(network: Any) -> bool:
    """Whether traces packed into a row have the hidden states that they have alone.

    They must agree up to rounding, and must not change by one bit when the other traces change: with the same shapes
    the arithmetic is the same, so any difference is a leak. (A mixture of experts groups rows differently then, and
    counts as a leak too.)
    """
    weight = network.get_output_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    traces = [
        torch.randint(weight.shape[0], (1, length), generator=generator).to(weight.device) for length in _TRIAL_LENGTHS
    ]
    others = [(ids + 1) % weight.shape[0] for ids in traces]
    was_training = network.training
    network.eval()
    try:
        packed = _hidden_states_per_trace(network, traces)
    except Exception:  # an architecture without positions or without lengths of traces can fail in any way
        network.train(was_training)
        return False
    alone_LH = torch.cat([_hidden_states_per_trace(network, [ids])[0] for ids in traces])
    unaffected = all(
        torch.equal(_hidden_states_per_trace(network, [*others[:i], ids, *others[i + 1 :]])[i], packed[i])
        for i, ids in enumerate(traces)
    )
    network.train(was_training)
    rounding = 1e-4 if alone_LH.dtype == torch.float32 else 5e-2
    return unaffected and bool((torch.cat(packed) - alone_LH).abs().max() <= rounding * alone_LH.abs().max())


def packing_inputs(lengths: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Inputs of a packed row of traces beside its tokens: position_ids [1, L] and `trace_lengths`."""
    position_ids = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
    return {"position_ids": position_ids, "trace_lengths": tuple(lengths)}


def hidden_states(network: Any, input_ids_BL: Tensor, **packing: Any) -> Tensor:
    """[B, L, H]: last hidden states. packing: from `packing_inputs`, empty for rows of one trace."""
    if packing and "flash" in network.config._attn_implementation:  # its kernels have arguments of their own
        lengths = packing["trace_lengths"]
        ends = torch.tensor([0, *lengths], device=input_ids_BL.device).cumsum(0).to(torch.int32)
        packing |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
        packing |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    hidden_BLH: Tensor = network.base_model(input_ids=input_ids_BL, use_cache=False, **packing).last_hidden_state
    return hidden_BLH


def _hidden_states_per_trace(network: Any, traces: list[Tensor]) -> tuple[Tensor, ...]:
    """[l, H] of each trace, all packed into one row."""
    lengths = [ids.shape[1] for ids in traces]
    row_LH = hidden_states(network, torch.cat(traces, 1), **packing_inputs(lengths, traces[0].device))[0]
    return row_LH.split(lengths)


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
    lengths = [query_BhLd.shape[2]] if trace_lengths is None else list(trace_lengths)
    per_trace = [x.split(lengths, 2) for x in (query_BhLd, key_BhLd, value_BhLd)]
    outputs = [
        sdpa_attention_forward(module, q, k, v, _window_mask(q, sliding_window), **rest)[0]
        for q, k, v in zip(*per_trace, strict=True)
    ]
    return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0], None


def _window_mask(query_Bhld: Tensor, width: int | None) -> Tensor | None:
    """The causal mask of a sliding window; None if the window covers the whole trace."""
    length = query_Bhld.shape[2]
    if width is None or length <= width:
        return None
    position = torch.arange(length, device=query_Bhld.device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < width))[None, None]


def _isolate_state(module: Any) -> None:
    row_forward = module.forward

    def forward(hidden_states: Tensor, *, trace_lengths: Sequence[int] | None = None, **rest: Any) -> Tensor:
        if trace_lengths is None or len(trace_lengths) == 1:
            return row_forward(hidden_states, **rest)
        traces = hidden_states.split(list(trace_lengths), 1)
        return torch.cat([row_forward(trace_BlH, **rest) for trace_BlH in traces], 1)

    module.forward = forward
