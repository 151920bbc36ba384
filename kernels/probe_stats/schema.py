"""The specification and the columns of ``probe_stats``.

Shape legend: N scored positions, V vocabulary, K = ``spec.top_logprobs``, C token classes, M temperatures, W values
per position of a packed column.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

MAX_TOP_LOGPROBS = 128

# Below the first, logits divided by the temperature overflow float32; above the second they are all equal.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e4


def _check_temperature(name: str, value: float) -> None:
    if not MIN_TEMPERATURE <= value <= MAX_TEMPERATURE:
        raise ValueError(f"{name} must be in [{MIN_TEMPERATURE:g}, {MAX_TEMPERATURE:g}], got {value}")


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, applied in vLLM's order: temperature, then top_k, then top_p.

    A tie at the k-th place is broken by the smaller token id, so exactly ``top_k`` tokens remain (fewer where fewer can
    occur). ``top_k=0`` and ``top_p=1`` switch each truncation off.
    Raises ValueError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature("temperature", self.temperature)
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 1, or 0 to switch it off, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def is_identity(self) -> bool:
        """True where a token is drawn from the model's own softmax: temperature 1 and no truncation."""
        return self.temperature == 1 and self.top_k == 0 and self.top_p == 1


@dataclass(frozen=True, eq=False)
class ProbeSpec:
    """Which statistics ``probe_stats`` computes.

    top_logprobs: the length K of the top lists, 1 to 128, and at least every ``top_k`` below.
    eval_sampling: the parameters of ``top_mass``, ``tail_mass``, ``nucleus_size`` and the ``support_*`` columns.
    train_sampling: the parameters of the training samples of self-distillation (the ``ssd_*``, ``*_kept_mass`` and
        ``*_ce_*`` columns).
    lse_temperatures: the M temperatures of ``lse_T``.
    token_class: uint8 [V], the class of each vocabulary entry, or None for no ``class_mass``.
    sweeps: 2 for everything. With 1, ``js`` and ``tv`` are NaN, a nucleus longer than K is -1, and KL is right to
        2e-7 + 1e-4 relative, as is what is computed from it. One sweep is faster, above all on a CPU without
        temperatures and classes.
    n_classes: the number C of classes, or 0 to take it from ``token_class``.
    Raises ValueError for a value out of range.
    """

    top_logprobs: int = 20
    eval_sampling: SamplingParams = SamplingParams(1.0, 20, 0.95)
    train_sampling: SamplingParams = SamplingParams(1.1, 20, 0.95)
    lse_temperatures: tuple[float, ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    token_class: Tensor | None = None
    sweeps: int = 2
    n_classes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise ValueError(f"top_logprobs must be in [1, {MAX_TOP_LOGPROBS}], got {self.top_logprobs}")
        if self.sweeps not in (1, 2):
            raise ValueError(f"sweeps must be 1 or 2, got {self.sweeps}")
        for name in ("eval_sampling", "train_sampling"):
            top_k = getattr(self, name).top_k
            if top_k > self.top_logprobs:
                raise ValueError(
                    f"{name}.top_k = {top_k} is longer than the top list: set top_logprobs to {top_k} or more"
                )
            if top_k == 0 and self.sweeps == 1:
                raise ValueError(f"{name}.top_k = 0 needs a second sweep: set sweeps to 2")
        for temperature in self.lse_temperatures:
            _check_temperature("each of lse_temperatures", temperature)
        if self.token_class is not None:
            if self.token_class.dtype != torch.uint8 or self.token_class.dim() != 1:
                got = f"{self.token_class.dtype} {list(self.token_class.shape)}"
                raise ValueError(f"token_class must be a uint8 tensor of shape [V], got {got}")
            used = int(self.token_class.max()) + 1 if self.token_class.numel() else 0
            object.__setattr__(self, "n_classes", max(self.n_classes, used))
        elif self.n_classes:
            raise ValueError("n_classes needs a token_class")


SpecNumbers = tuple[Tensor | None, int, int, int, list[float], list[int], list[float]]


def to_numbers(spec: ProbeSpec, device: torch.device) -> SpecNumbers:
    """A specification in types that a torch operator takes; the inverse is ``from_numbers``."""
    evaluation, training = spec.eval_sampling, spec.train_sampling
    return (
        None if spec.token_class is None else spec.token_class.to(device), spec.n_classes, spec.top_logprobs,
        spec.sweeps, [evaluation.temperature, evaluation.top_p, training.temperature, training.top_p],
        [evaluation.top_k, training.top_k], list(spec.lse_temperatures),
    )  # fmt: skip


def from_numbers(
    token_class: Tensor | None, n_classes: int, top_logprobs: int, sweeps: int, temperature_and_p: list[float],
    top_k: list[int], lse_temperatures: list[float], has_values: bool = True,
) -> ProbeSpec:  # fmt: skip
    """``has_values=False`` where the classes are a fake tensor: ``n_classes`` is trusted then."""
    t_eval, p_eval, t_train, p_train = temperature_and_p
    spec = ProbeSpec(
        top_logprobs, SamplingParams(t_eval, top_k[0], p_eval), SamplingParams(t_train, top_k[1], p_train),
        tuple(lse_temperatures), token_class if has_values else None, sweeps, n_classes if has_values else 0,
    )  # fmt: skip
    if not has_values:
        object.__setattr__(spec, "n_classes", n_classes)
    return spec


@dataclass(frozen=True)
class ModelStats:
    """One model's columns. Floats are float32 (float64 from the reference on float64 logits), in nats.

    Ids, ranks and sizes are int64. In a row whose logits hold NaN or +inf, or are all -inf, every
    float is NaN and every integer -1.
    """

    lse: Tensor  # [N]     logsumexp of the logits
    entropy: Tensor  # [N]     of softmax(logits)
    token_logprob: Tensor  # [N]     of the trace's token
    top_mass: Tensor  # [N]     mass of the eval_sampling.top_k largest
    tail_mass: Tensor  # [N]     mass outside them, summed directly
    support_entropy: Tensor  # [N]     of the distribution that eval_sampling draws from
    top_logprobs: Tensor  # [N, K]  -inf where fewer than K tokens can occur
    class_mass: Tensor  # [N, C]
    lse_T: Tensor  # [N, M]  logsumexp of logits / T
    token_rank: Tensor  # [N]     0 = most likely
    nucleus_size: Tensor  # [N]     tokens to reach eval_sampling.top_p of the whole vocabulary's mass
    support_size: Tensor  # [N]     tokens that eval_sampling can draw
    top_ids: Tensor  # [N, K]  -1 where fewer than K tokens can occur


@dataclass(frozen=True)
class PairStats:
    """Columns of the pair (baseline a, trained model b); NaN or -1 where either row is invalid.

    The ``ssd_*`` columns take the support S and the distribution q from the baseline at ``spec.train_sampling``. The
    ``*_ce_*`` terms of a model p split its loss CE(q, p) = compression + reshaping + alignment + T H(q): they are
    -log p(S), (1 - T) H_{1/T}(r) with the Rényi entropy of order 1/T, and T KL(q || r tempered by T), with r the model
    restricted to S.
    """

    kl_base_trained: Tensor  # [N]     KL(a || b); +inf where b forbids a token that a allows
    kl_trained_base: Tensor  # [N]     KL(b || a)
    js: Tensor  # [N]     Jensen-Shannon divergence, nats
    tv: Tensor  # [N]     total variation distance
    logratio_var: Tensor  # [N]     Var_a(log p_b - log p_a)
    ssd_cov: Tensor  # [N]     Cov_a(log p_b - log p_a, q / p_a - 1)
    ssd_var: Tensor  # [N]     Var_a(q / p_a - 1), the chi-squared divergence of q from p_a
    ssd_alignment: Tensor  # [N]     their correlation; NaN where rounding leaves no variance
    trained_logprobs_at_base_top: Tensor  # [N, K]  log p_b at a's top ids
    base_logprobs_at_trained_top: Tensor  # [N, K]  log p_a at b's top ids
    base_ce_compression: Tensor  # [N]
    base_ce_reshaping: Tensor  # [N]
    base_ce_alignment: Tensor  # [N]
    trained_ce_compression: Tensor  # [N]
    trained_ce_reshaping: Tensor  # [N]
    trained_ce_alignment: Tensor  # [N]
    base_kept_mass: Tensor  # [N]     mass of a on S
    trained_kept_mass: Tensor  # [N]     mass of b on S
    support_overlap: Tensor  # [N]     tokens in both models' supports at eval_sampling


@dataclass(frozen=True)
class ProbeStats:
    """The columns of the baseline, of the trained model (None if absent) and of their comparison."""

    base: ModelStats
    trained: ModelStats | None
    pair: PairStats | None


CE_TERMS = ("compression", "reshaping", "alignment")
CE_TERM_COLUMNS = tuple(f"{model}_ce_{term}" for model in ("base", "trained") for term in CE_TERMS)
KEPT_MASS_COLUMNS = ("base_kept_mass", "trained_kept_mass")
INTEGERS = ("token_rank", "nucleus_size", "support_size", "top_ids", "support_overlap")


class Block(NamedTuple):
    """A piece of a packed buffer: N * width elements, position-major.

    It holds one column of ``width`` values per position or, where it has several names, as many columns interleaved.
    """

    group: str  # a field of ProbeStats
    names: tuple[str, ...]
    width: int
    is_integer: bool


def _interleaved(name: str) -> tuple[str, ...]:
    """The columns that share a block with this one, itself included."""
    for names in (CE_TERM_COLUMNS, KEPT_MASS_COLUMNS):
        if name in names:
            return names
    return (name,)


# The names of each block, in packed order.
_MODEL_BLOCKS: tuple[tuple[str, ...], ...] = tuple((field.name,) for field in fields(ModelStats))
_PAIR_BLOCKS = tuple(dict.fromkeys(_interleaved(field.name) for field in fields(PairStats)))


def columns(spec: ProbeSpec, pair: bool) -> list[Block]:
    """Every column in packed order. Backends write two flat buffers, floats and integers, block after block."""
    widths = _widths(spec)
    groups = [("base", _MODEL_BLOCKS)]
    if pair:
        groups += [("trained", _MODEL_BLOCKS), ("pair", _PAIR_BLOCKS)]
    return [
        Block(group, names, widths.get(names[0], len(names)), names[0] in INTEGERS)
        for group, blocks in groups
        for names in blocks
    ]


def _widths(spec: ProbeSpec) -> dict[str, int]:
    """Values per position of the columns that are not [N]."""
    return {
        "top_logprobs": spec.top_logprobs,
        "top_ids": spec.top_logprobs,
        "trained_logprobs_at_base_top": spec.top_logprobs,
        "base_logprobs_at_trained_top": spec.top_logprobs,
        "class_mass": spec.n_classes,
        "lse_T": len(spec.lse_temperatures),
    }


def packed_sizes(spec: ProbeSpec, pair: bool) -> tuple[int, int]:
    """Values per position in the float buffer and in the integer buffer."""
    blocks = columns(spec, pair)
    return sum(b.width for b in blocks if not b.is_integer), sum(b.width for b in blocks if b.is_integer)


def new_packed(like: Tensor, n: int, spec: ProbeSpec, pair: bool) -> tuple[Tensor, Tensor]:
    """The two buffers for N positions, uninitialised, on the device of ``like``; float64 if it is."""
    floats, ints = packed_sizes(spec, pair)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return like.new_empty(n * floats, dtype=dtype), like.new_empty(n * ints, dtype=torch.int64)


def unpack(floats: Tensor, ints: Tensor, n: int, spec: ProbeSpec, pair: bool) -> ProbeStats:
    """Give the columns of two packed buffers their names; the columns are views."""
    groups: dict[str, dict[str, Tensor]] = {"base": {}, "trained": {}, "pair": {}}
    offset = {False: 0, True: 0}
    wide = _widths(spec)
    for group, names, width, is_integer in columns(spec, pair):
        block_NW = (ints if is_integer else floats).narrow(0, offset[is_integer], n * width).view(n, width)
        offset[is_integer] += n * width
        for i, name in enumerate(names):
            groups[group][name] = block_NW if name in wide else block_NW[:, i]
    if not pair:
        return ProbeStats(ModelStats(**groups["base"]), None, None)
    return ProbeStats(ModelStats(**groups["base"]), ModelStats(**groups["trained"]), PairStats(**groups["pair"]))


def pack(stats: ProbeStats, spec: ProbeSpec) -> tuple[Tensor, Tensor]:
    """The inverse of ``unpack``, for a backend that builds its columns one by one."""
    flat: dict[bool, list[Tensor]] = {False: [], True: []}
    for group, names, _, is_integer in columns(spec, stats.pair is not None):
        values = [getattr(getattr(stats, group), name) for name in names]
        flat[is_integer].append((values[0] if len(values) == 1 else torch.stack(values, 1)).reshape(-1))
    return torch.cat(flat[False]), torch.cat(flat[True])


def put_rows(out: ProbeStats, rows: slice | Tensor, stats: ProbeStats) -> None:
    """Write the columns of some rows, a slice or their indices, to their place in the columns of all rows."""
    for group, of_all in vars(out).items():
        of_rows = getattr(stats, group)
        for name, column in vars(of_rows).items() if of_rows else ():
            getattr(of_all, name)[rows] = column
