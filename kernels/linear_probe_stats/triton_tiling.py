"""The shape of a tile, chosen for the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton


@dataclass(frozen=True)
class Tiling:
    """The tiles of a kind of device: ROWS by ``ids`` logits, reduced ``slice`` columns at a time, with ``depth`` of H
    in each of ``stages`` of the pipeline. They are the largest that spill no register."""

    ids: int
    slice: int
    depth: int
    stages: int
    warps: int = 8

    @staticmethod
    def for_device(device: torch.device) -> Tiling:
        if device.type != "cuda":  # the interpreter: few large blocks
            return Tiling(256, 128, 64, 1)
        if torch.version.hip:
            return TILINGS["gfx942"]
        return TILINGS[{9: "sm_90", 10: "sm_100"}.get(torch.cuda.get_device_capability(device)[0], "sm_80")]

    def tiles(self, vocabulary: int) -> int:
        return triton.cdiv(vocabulary, self.ids)

    def launch(self, *hidden_sizes: int) -> dict[str, object]:
        """The launch options of a kernel; its depth divides the hidden sizes, which are multiples of 16."""
        depth = math.gcd(self.depth, *hidden_sizes)
        return {"IDS": self.ids, "SLICE": self.slice, "DEPTH": depth, "num_warps": self.warps,
                "num_stages": self.stages}  # fmt: skip


TILINGS = {
    "sm_80": Tiling(128, 8, 32, 3),
    "sm_90": Tiling(256, 16, 64, 3),
    "sm_100": Tiling(128, 16, 64, 3),
    "gfx942": Tiling(128, 16, 64, 2, warps=4),
}
