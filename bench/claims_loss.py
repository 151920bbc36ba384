"""The claims about ``soft_label_ce``."""

from __future__ import annotations

from collections.abc import Iterator

import soft_label_ce
from claim import Claim


def on_cpu() -> Iterator[Claim]:
    yield from soft_label_ce.claims()


def on_gpu() -> Iterator[Claim]:
    yield from soft_label_ce.gpu_claims()
