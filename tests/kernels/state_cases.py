"""A vocabulary split in one process: what shards on ranks do, without the ranks."""

from __future__ import annotations

import itertools

import torch

from ssdfast.kernels import ProbeStats, merge_states
from ssdfast.kernels.probe_stats import state
from ssdfast.kernels.probe_stats.shard_nucleus import nucleus_sizes
from ssdfast.kernels.probe_stats.shards import divergences, partial_state
from ssdfast.kernels.probe_stats.state_columns import columns


def statistics(a, b, token, spec, cuts, backend) -> ProbeStats:
    """Every column of the merged states of parts that end where ``cuts`` say, as shares of the vocabulary."""
    v, models = a.shape[1], [z for z in (a, b) if z is not None]
    edges = [0, *(round(cut * v) for cut in cuts), v]
    token_z = torch.stack([z.gather(1, token[:, None])[:, 0].float() for z in models])
    parts = [(i, a[:, i:j], None if b is None else b[:, i:j]) for i, j in itertools.pairwise(edges)]
    whole = merge_states([partial_state(x, y, token, token_z, spec, i, backend) for i, x, y in parts])
    sums = None
    if b is not None and spec.sweeps == 2:
        known = *state.normalisers(whole), state.pivot(whole)
        sums = torch.stack([divergences(x, y, *known, backend) for _, x, y in parts]).sum(0)
    stats = columns(whole, spec, sums)
    for i, (z, model) in enumerate(zip(models, (stats.base, stats.trained), strict=False)):
        largest = whole.model(i)[state.MAX]
        rows = ((model.nucleus_size == -1) & largest.isfinite()).nonzero()[:, 0]
        if spec.sweeps == 2 and rows.numel():
            sizes = nucleus_sizes(z[rows], largest[rows], spec.eval_sampling.top_p, v, lambda part: part)
            model.nucleus_size[rows] = sizes
    return stats
