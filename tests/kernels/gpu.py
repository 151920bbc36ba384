"""Where Triton's kernels are tested: on a GPU, or with TRITON_INTERPRET=1 in Triton's interpreter. A test file that
imports from here is skipped where there is neither."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)
pytestmark = pytest.mark.interpreter if INTERPRETED else pytest.mark.gpu
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def quick_interpreter(monkeypatch):
    """The interpreter prepares ``triton.language`` anew at every call of a helper, most of its time: once is enough."""
    if not INTERPRETED:
        return
    from triton.runtime.interpreter import InterpretedFunction

    prepare_and_call, prepared = InterpretedFunction.__call__, set()

    def call(self, *args, **kwargs):
        if self.fn.__module__ in prepared:
            return self.rewrite()(*args, **kwargs)
        prepared.add(self.fn.__module__)
        return prepare_and_call(self, *args, **kwargs)

    monkeypatch.setattr(InterpretedFunction, "__call__", call)
