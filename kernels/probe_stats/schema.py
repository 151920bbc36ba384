"""What goes into ``probe_stats`` and what comes out: the one place that names the columns.

Shape legend: N scored positions, V vocabulary, K = ``spec.top``, C token classes, M temperatures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

MAX_TOP = 128


# Logits divided by less overflow float32, by more are all the same.
COLDEST, HOTTEST = 1e-4, 1e4


def _check_temperature(name: str, value: float) -> None:
    if not COLDEST <= value <= HOTTEST:
        raise ValueError(f"{name} must lie in {COLDEST:g}..{HOTTEST:g}, got {value}")


@dataclass(frozen=True)
class Decoding:
    """A decoding setting, applied in vLLM's order: divide by T, keep the top k, keep the nucleus of mass p.

    Ties at the k-th place are kept by smaller token id, so exactly ``top_k`` tokens survive (fewer
    where fewer can occur). ``top_k=0`` and ``top_p=1`` switch each truncation off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature("temperature", self.temperature)
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 1, or 0 to switch it off, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")

    @property
    def is_identity(self) -> bool:
        """True where decoding draws from the model's own softmax: T = 1 and no truncation."""
        return self.temperature == 1 and self.top_k == 0 and self.top_p == 1


@dataclass(frozen=True, eq=False)
class ProbeSpec:
    """Which statistics ``probe_stats`` computes.

    top: length K of the top lists, 1 to 128; at least every ``top_k`` below.
    decoding: the setting of ``top_mass``, ``nucleus_size`` and the ``support_*`` columns.
    train: the setting that self-distillation sampled with (``ssd_*``, ``kept_mass``).
    temperatures: the M temperatures of ``lse_T``.
    token_class: uint8 [V], the class of each vocabulary entry, or None for no ``class_mass``.
    sweeps: 2 for everything; 1 leaves ``js`` and ``tv`` NaN and a nucleus longer than K at -1, with KL right to
        2e-7 + 1e-4 relative (and what is made of it accordingly). One is faster, on a CPU by far where there are
        no temperatures and no classes.
    """

    top: int = 20
    decoding: Decoding = Decoding(1.0, 20, 0.95)
    train: Decoding = Decoding(1.1, 20, 0.95)
    temperatures: tuple[float, ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    token_class: Tensor | None = None
    sweeps: int = 2
    n_classes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.top <= MAX_TOP:
            raise ValueError(f"top must lie in 1..{MAX_TOP}, got {self.top}")
        if self.sweeps not in (1, 2):
            raise ValueError(f"sweeps must be 1 or 2, got {self.sweeps}")
        for name in ("decoding", "train"):
            top_k = getattr(self, name).top_k
            if top_k > self.top:
                raise ValueError(f"{name}.top_k = {top_k} is longer than the top list: set top to {top_k} or more")
            if top_k == 0 and self.sweeps == 1:
                raise ValueError(f"{name}.top_k = 0 needs a second look at each row: set sweeps to 2")
        for t in self.temperatures:
            _check_temperature("every one of temperatures", t)
        if self.token_class is not None:
            if self.token_class.dtype != torch.uint8 or self.token_class.dim() != 1:
                got = f"{self.token_class.dtype} {list(self.token_class.shape)}"
                raise ValueError(f"token_class must be a uint8 tensor of shape [V], got {got}")
            seen = int(self.token_class.max()) + 1 if self.token_class.numel() else 0
            object.__setattr__(self, "n_classes", max(self.n_classes, seen))
        elif self.n_classes:
            raise ValueError("n_classes needs a token_class")


def to_numbers(spec: ProbeSpec, device: torch.device) -> tuple[Tensor | None, int, int, int, list, list, list]:
    """A specification as what a torch operator may take; the inverse is ``from_numbers``."""
    decoding, train = spec.decoding, spec.train
    return (
        None if spec.token_class is None else spec.token_class.to(device), spec.n_classes, spec.top, spec.sweeps,
        [decoding.temperature, decoding.top_p, train.temperature, train.top_p], [decoding.top_k, train.top_k],
        list(spec.temperatures),
    )  # fmt: skip


def from_numbers(
    token_class: Tensor | None, n_classes: int, top: int, sweeps: int, temperature_and_p: list[float],
    top_k: list[int], temperatures: list[float], has_values: bool = True,
) -> ProbeSpec:  # fmt: skip
    """``has_values=False`` where the classes are a fake tensor: what depends on its values is taken as given."""
    t, p, t_train, p_train = temperature_and_p
    spec = ProbeSpec(
        top, Decoding(t, top_k[0], p), Decoding(t_train, top_k[1], p_train), tuple(temperatures),
        token_class if has_values else None, sweeps, n_classes if has_values else 0,
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
    token_logprob: Tensor  # [N]     of the token that stands in the trace
    top_mass: Tensor  # [N]     mass of the decoding.top_k largest
    tail_mass: Tensor  # [N]     mass outside them, summed directly
    support_entropy: Tensor  # [N]     of the decoding distribution
    top_logprobs: Tensor  # [N, K]  -inf where fewer than K tokens can occur
    class_mass: Tensor  # [N, C]
    lse_T: Tensor  # [N, M]  logsumexp of logits / T
    token_rank: Tensor  # [N]     0 = most likely
    nucleus_size: Tensor  # [N]     tokens to reach decoding.top_p of the whole vocabulary's mass
    support_size: Tensor  # [N]     tokens that decoding can draw
    top_ids: Tensor  # [N, K]  -1 where fewer than K tokens can occur


@dataclass(frozen=True)
class PairStats:
    """Columns of the pair (baseline a, trained model b); NaN or -1 where either row is invalid.

    The ``ssd_*`` columns take the support S and the distribution q from the baseline at ``spec.train``.
    """

    kl_ab: Tensor  # [N]       KL(a || b); +inf where b forbids a token that a allows
    kl_ba: Tensor  # [N]
    js: Tensor  # [N]       Jensen-Shannon divergence, nats
    tv: Tensor  # [N]       total variation distance
    delta_var: Tensor  # [N]       Var_a(log p_b - log p_a)
    ssd_push: Tensor  # [N]       Cov_a(log p_b - log p_a, q / p_a - 1)
    ssd_chi2: Tensor  # [N]       Var_a(q / p_a - 1)
    ssd_alignment: Tensor  # [N]       their correlation
    b_at_a_top: Tensor  # [N, K]    log p_b at a's top ids
    a_at_b_top: Tensor  # [N, K]    log p_a at b's top ids
    ssd_terms: Tensor  # [N, 2, 3] compression, reshaping, alignment of CE(q, p), for a and for b
    kept_mass: Tensor  # [N, 2]    mass of a and of b on S
    support_overlap: Tensor  # [N]       tokens in both decoding supports


@dataclass(frozen=True)
class ProbeStats:
    """``a`` the baseline, ``b`` the trained model (None if absent), ``pair`` their comparison."""

    a: ModelStats
    b: ModelStats | None
    pair: PairStats | None


MODEL_COLUMNS = tuple(field.name for field in fields(ModelStats))
PAIR_COLUMNS = tuple(field.name for field in fields(PairStats))
INTEGERS = ("token_rank", "nucleus_size", "support_size", "top_ids", "support_overlap")


def _wide(spec: ProbeSpec) -> dict[str, int]:
    """Values per position of the columns that are not [N]."""
    return {
        "top_logprobs": spec.top,
        "top_ids": spec.top,
        "b_at_a_top": spec.top,
        "a_at_b_top": spec.top,
        "class_mass": spec.n_classes,
        "lse_T": len(spec.temperatures),
        "ssd_terms": 6,
        "kept_mass": 2,
    }


def columns(spec: ProbeSpec, pair: bool) -> list[tuple[str, str, int, bool]]:
    """Every column in packed order: (group, name, values per position, is integer).

    Backends write two flat buffers, floats and integers. A column of w values per position takes
    N * w consecutive elements of its buffer, position-major, in this order.
    """
    wide = _wide(spec)
    groups = [("a", MODEL_COLUMNS)] + ([("b", MODEL_COLUMNS), ("pair", PAIR_COLUMNS)] if pair else [])
    return [(group, name, wide.get(name, 1), name in INTEGERS) for group, names in groups for name in names]


def packed_sizes(spec: ProbeSpec, pair: bool) -> tuple[int, int]:
    """Values per position in the float buffer and in the integer buffer."""
    table = columns(spec, pair)
    return sum(w for *_, w, is_int in table if not is_int), sum(w for *_, w, is_int in table if is_int)


def new_packed(like: Tensor, n: int, spec: ProbeSpec, pair: bool) -> tuple[Tensor, Tensor]:
    """The two buffers for N positions, uninitialised, on the device of ``like``; float64 if it is."""
    floats, ints = packed_sizes(spec, pair)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return like.new_empty(n * floats, dtype=dtype), like.new_empty(n * ints, dtype=torch.int64)


def unpack(floats: Tensor, ints: Tensor, n: int, spec: ProbeSpec, pair: bool) -> ProbeStats:
    """Give the columns of two packed buffers their names; the columns are views."""
    found: dict[str, dict[str, Tensor]] = {"a": {}, "b": {}, "pair": {}}
    offset = {False: 0, True: 0}
    wide = _wide(spec)
    for group, name, w, is_int in columns(spec, pair):
        flat = (ints if is_int else floats).narrow(0, offset[is_int], n * w)
        offset[is_int] += n * w
        shape = {"ssd_terms": (n, 2, 3)}.get(name, (n, w) if name in wide else (n,))
        found[group][name] = flat.view(shape)
    if not pair:
        return ProbeStats(ModelStats(**found["a"]), None, None)
    return ProbeStats(ModelStats(**found["a"]), ModelStats(**found["b"]), PairStats(**found["pair"]))


def pack(stats: ProbeStats, spec: ProbeSpec) -> tuple[Tensor, Tensor]:
    """The inverse of ``unpack``, for a backend that builds its columns one by one."""
    flat: dict[bool, list[Tensor]] = {False: [], True: []}
    for group, name, _, is_int in columns(spec, stats.pair is not None):
        flat[is_int].append(getattr(getattr(stats, group), name).reshape(-1))
    return torch.cat(flat[False]), torch.cat(flat[True])


def put_rows(out: ProbeStats, rows: slice | Tensor, found: ProbeStats) -> None:
    """Write the columns of some rows, a slice or their indices, where they belong in the columns of all."""
    for mine, theirs in zip(vars(out).values(), vars(found).values(), strict=True):
        for name, column in vars(theirs).items() if theirs else ():
            getattr(mine, name)[rows] = column
