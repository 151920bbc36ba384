"""The shape of a tile, chosen for the device."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import triton

from .triton_tiles import GROUP


@dataclass(frozen=True)
class Tiling:
    """The tiles of a kind of device: ROWS by ``ids`` logits, reduced ``part`` columns at a time, with ``depth`` of H in
    each of ``stages`` of the pipeline; ``narrow_ids`` logits where the temperatures take more than two exponentials.
    They are the largest that spill no register."""

    ids: int
    narrow_ids: int
    part: int
    depth: int
    stages: int
    warps: int = 8
    ptx: bool = True

    @staticmethod
    def for_device(device: torch.device) -> Tiling:
        if device.type != "cuda":  # the interpreter: few large blocks
            return Tiling(256, 256, 64, 64, 1, ptx=False)
        if torch.version.hip:
            return TILINGS["gfx942"]
        return TILINGS[{9: "sm_90", 10: "sm_100"}.get(torch.cuda.get_device_capability(device)[0], "sm_80")]

    def for_exponentials(self, count: int) -> Tiling:
        """These tiles for so many exponentials per logit."""
        return self if count <= 2 else replace(self, ids=self.narrow_ids, part=min(self.part, self.narrow_ids))

    def tiles(self, vocabulary: int) -> int:
        return triton.cdiv(vocabulary, self.ids)

    def groups(self, vocabulary: int) -> int:
        """Groups of a row, those of the last tile that are beyond the vocabulary included."""
        return self.tiles(vocabulary) * (self.ids // GROUP.value)

    def launch(self, hidden_size: int) -> dict[str, object]:
        """The launch options of ``tile_states``; its depth divides the hidden size, which is a multiple of 16."""
        return {"IDS": self.ids, "PART": self.part, "DEPTH": math.gcd(self.depth, hidden_size),
                "EX2": self.ptx, "num_warps": self.warps, "num_stages": self.stages}  # fmt: skip


TILINGS = {
    "sm_80": Tiling(64, 64, 64, 32, 3),
    "sm_90": Tiling(256, 256, 64, 64, 3),
    "sm_100": Tiling(128, 64, 128, 64, 3),
    "gfx942": Tiling(128, 128, 64, 64, 2, warps=4, ptx=False),
}
