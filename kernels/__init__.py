"""The fused kernels of ssdfast, usable alone: tensors in, statistics out.

Installed as ``ssdfast.kernels``. Every operation is a directory that can be read alone:
``reference.py`` is the definition in plain torch, the other files compute the same numbers faster.
"""

# In a checkout, transformers finds this directory when it looks for the package "kernels", and imports it. Under that
# name it is empty, or its operators would be registered twice.
if __name__ != "kernels":
    from .linear_probe_stats import LmHead, linear_probe_stats, lm_head_logits, sharded_linear_probe_stats
    from .probe_stats import (
        ModelStats,
        PairStats,
        ProbeSpec,
        ProbeStats,
        SamplingParams,
        merge_states,
        probe_stats,
        sharded_probe_stats,
    )
    from .soft_label_ce import soft_label_ce

    __all__ = [
        "LmHead",
        "ModelStats",
        "PairStats",
        "ProbeSpec",
        "ProbeStats",
        "SamplingParams",
        "linear_probe_stats",
        "lm_head_logits",
        "merge_states",
        "probe_stats",
        "sharded_linear_probe_stats",
        "sharded_probe_stats",
        "soft_label_ce",
    ]
