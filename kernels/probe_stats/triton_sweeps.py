"""The launches of the two sweeps: how rows are divided among programs, and the buffers between kernels.

Legend: a is the baseline, b the trained model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from .schema import ProbeSpec
from .state import DIVERGENCES, Layout
from .triton_exact import first_sweep_exact, second_sweep_exact
from .triton_first_sweep import first_sweep
from .triton_rows import ROW_SLOTS
from .triton_second_sweep import second_sweep
from .triton_threads import T
from .triton_vectors import INTERPRETED, LOG2E_32, Machine

PART_TOKENS = 1 << 16  # at most, of a program of a sweep


@dataclass(frozen=True)
class Sweep:
    """How a sweep divides rows: vectors of a thread in a chunk, chunks of a part, parts. The same for any N."""

    steps: int
    chunks: int
    parts: int

    @staticmethod
    def of(logits_NV: Tensor, steps: int) -> Sweep:
        vector = 16 // logits_NV.element_size()
        chunk = steps * T.value * vector
        chunks = triton.cdiv(logits_NV.shape[1] + vector - 1, chunk)  # a row may begin within a vector
        parts = triton.cdiv(chunks * chunk, PART_TOKENS)
        return Sweep(steps, triton.cdiv(chunks, parts), parts)


class Workspace:
    """The buffers between the kernels; their layouts are described where they are written."""

    def __init__(self, logits_NV: Tensor, pair: bool, spec: ProbeSpec) -> None:
        n = logits_NV.shape[0]
        self.layout = Layout.from_spec(spec, pair)
        self.machine = Machine.for_device(logits_NV.device)
        self.warps = T.value // self.machine.warp
        self.by_thread = not INTERPRETED.value
        roots, self.root_of, self.powers = few_exponentials(self.layout.rates)
        self.scales = tuple(float(np.float32(LOG2E_32 * root)) for root in roots)
        # As many vectors as the registers hold.
        self.sweep = Sweep.of(logits_NV, 2 if self.layout.pair_sums and len(self.layout.rates) > 1 else 3)
        self.groups = self.sweep.parts * T.value
        self.list_size = max(2, triton.next_power_of_2(spec.top_logprobs))  # Triton selects no single one
        self.grouped = logits_NV if self.layout.pair_sums else None  # both models' tokens are grouped by one alignment

        def floats(*shape: int) -> Tensor:
            return logits_NV.new_empty(shape, dtype=torch.float32)

        models = self.layout.models
        self.state = floats(n, self.layout.slots, self.sweep.parts)
        self.group_max, self.group_sum = floats(models, n, self.groups), floats(models, n, self.groups)
        self.rows = floats(models, n, ROW_SLOTS.value)


def few_exponentials(rates: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """(roots, root_of, powers) with rates[j] = powers[j] * roots[root_of[j]] and as few roots as whole powers allow.

    exp(rate x) is then a power of exp(root x): a multiplication instead of an exponential.
    """
    roots: list[float] = []
    root_and_power: dict[float, tuple[int, int]] = {}
    for rate in sorted(set(rates)):
        for i, root in enumerate(roots):
            power = round(rate / root)
            if power <= 8 and abs(rate / root - power) < 1e-9:
                root_and_power[rate] = (i, power)
                break
        else:
            root_and_power[rate] = (len(roots), 1)
            roots.append(rate)
    return tuple(roots), tuple(root_and_power[r][0] for r in rates), tuple(root_and_power[r][1] for r in rates)


def sweep_once(a: Tensor, b: Tensor | None, token: Tensor, token_z: Tensor, work: Workspace) -> None:
    """Both models in one read where the pair's sums are wanted, else one after the other: fewer registers."""
    if b is not None and work.layout.pair_sums:
        _sweep_models(a, b, token, token_z, 0, work)
        return
    for model, z in enumerate((a,) if b is None else (a, b)):
        _sweep_models(z, None, token, token_z[model], model, work)


def _sweep_models(a: Tensor, b: Tensor | None, token: Tensor, token_z: Tensor, model: int, work: Workspace) -> None:
    """One model, of this index, or both."""
    layout, sweep = work.layout, work.sweep
    b_or_a = a if b is None else b
    arguments = (
        a, b_or_a, token, token_z, work.state[:, model * layout.model_slots :], work.group_max[model],
        work.group_sum[model], a.shape[0], a.shape[1], sweep.parts, sweep.chunks, a.stride(0), b_or_a.stride(0),
        layout.slots, layout.model_slots,
    )  # fmt: skip
    grid, models = (a.shape[0] * sweep.parts,), 1 if b is None else 2
    first_sweep[grid](
        *arguments, SCALES=work.scales, ROOT_OF=work.root_of, POWERS=work.powers, MODELS=models, STEPS=sweep.steps,
        PTX=work.machine.ptx, BY_THREAD=work.by_thread, num_warps=work.warps,
    )  # fmt: skip
    # More warps than the fast sweep has: each logit takes more registers, and few parts come here.
    first_sweep_exact[grid](*arguments, RATES=layout.rates, MODELS=models, STEPS=sweep.steps, num_warps=4 * work.warps)


def sweep_twice(a: Tensor, b: Tensor, row_a: Tensor, row_b: Tensor, pivot: Tensor) -> Tensor:
    """float32 [N, DIVERGENCES, parts]."""
    n, v = a.shape
    machine, sweep = Machine.for_device(a.device), Sweep.of(a, 2)
    state = a.new_empty(n, DIVERGENCES, sweep.parts, dtype=torch.float32)
    grid, warps = (n * sweep.parts,), T.value // machine.warp
    arguments = (a, b, row_a, row_b, pivot, state, v, sweep.parts, sweep.chunks, a.stride(0), b.stride(0))
    second_sweep[grid](*arguments, STEPS=sweep.steps, PTX=machine.ptx, num_warps=warps)
    second_sweep_exact[grid](*arguments, STEPS=sweep.steps, num_warps=2 * warps)
    return state
