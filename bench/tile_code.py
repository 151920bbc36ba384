"""Instructions per entry of a tile, beside its product, read off the machine code: ``python bench/tile_code.py``.

Compiled ahead of time for sm_90, so it needs no GPU. Counted is what a thread issues from the end of the product to the
next one, but for what the last tile alone does about entries beyond the vocabulary.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the launches are recorded by a module of the tests

import torch  # noqa: E402
from sass import Instruction, disassemble, loops  # noqa: E402

from ssdfast.kernels import ProbeSpec  # noqa: E402
from tests.kernels import resources  # noqa: E402
from tests.kernels.resources import Launch  # noqa: E402

TARGET = "sm_90"
ROWS = 128
RARE = 60  # instructions: a longer branch is that of the last tile


def epilogue(launch: Launch) -> list[Instruction]:
    """The instructions of the loop over tiles, without the loop of the product and without rare branches."""
    code = disassemble(resources.compiled(launch, resources.TARGETS[TARGET]).asm["cubin"])
    outer, *inner = loops(code)
    own = [i for i in code if i in outer and not any(i in loop for loop in inner)]
    rare: set[int] = set()
    for branch in own:
        if branch.predicated and branch.target is not None and branch.address < branch.target <= outer.last:
            skipped = {i.address for i in own if branch.address < i.address < branch.target}
            if RARE < len(skipped) < len(own) / 2:
                rare |= skipped
    return [i for i in own if i.address not in rare]


def instructions_per_entry(spec: ProbeSpec) -> float:
    launches = resources.linear_launches(TARGET, 2560, 4096, torch.bfloat16, spec)
    launch = next(x for x in launches if x.fn.__name__ == "tile_states")
    entries = ROWS * int(str(dict(launch.constants)["IDS"])) / (32 * launch.num_warps)
    return len(epilogue(launch)) / entries


if __name__ == "__main__":
    for name, spec in (("without temperatures", resources.ONE_SWEEP), ("the default temperatures", resources.TEMPERED)):
        print(f"{name}: {instructions_per_entry(spec):.1f} instructions per entry on {TARGET}")
