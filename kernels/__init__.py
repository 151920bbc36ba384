"""The fused kernels of ssdfast. They work on tensors alone and need nothing else of ssdfast.

The package is installed as ``ssdfast.kernels``. Each operation is a directory that can be read alone: ``reference.py``
is its definition in plain torch, and the other files compute the same numbers faster.
"""

# In a checkout, transformers takes this directory for the package "kernels" and imports it. Under that name it is
# empty: otherwise its operators would be registered twice.
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
