"""The tiles' instructions per entry, in the machine code for sm_90. No GPU is needed."""

import os
import sys
from pathlib import Path

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter is on, and nothing can be compiled beside it", allow_module_level=True)

from . import resources

pytestmark = pytest.mark.aot
BENCH = Path(__file__).resolve().parent.parent.parent / "bench"


@pytest.fixture
def tile_code(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    known = set(sys.modules)
    import tile_code

    yield tile_code
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCH:
            del sys.modules[name]


@pytest.mark.parametrize(("spec", "most"), [(resources.ONE_SWEEP, 20), (resources.TEMPERED, 30)])
def test_an_entry_costs_few_instructions(tile_code, spec, most):
    assert 10 < tile_code.instructions_per_entry(spec) <= most


def test_no_logit_leaves_the_registers(tile_code):
    """Neither a scratch tile nor a change of layout: what is written are a few numbers per row and group."""
    launch = next(
        x for x in resources.linear_launches("sm_90", 2560, 4096, tile_code.torch.bfloat16, resources.ONE_SWEEP)
        if x.fn.__name__ == "tile_states"
    )  # fmt: skip
    names = [i.name for i in tile_code.epilogue(launch)]
    entries = 128 * 256 // (32 * launch.num_warps)
    for name in ("STG", "STS", "STSM", "LDS", "STL", "LDL"):
        assert names.count(name) <= entries // 4, name
    assert names.count("MUFU") >= entries
