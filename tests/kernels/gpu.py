"""Where Triton's kernels are tested: on a GPU, or with TRITON_INTERPRET=1 in Triton's interpreter. A test file that
imports from here is skipped where there is neither."""

import dataclasses
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
    """The interpreter does some things anew for each operation, most of its time, of which once is enough."""
    if not INTERPRETED:
        return
    from triton.language.core import block_type, tensor
    from triton.runtime import interpreter

    function = interpreter.InterpretedFunction
    monkeypatch.setattr(function, "__call__", _prepared_call(function.__call__))
    monkeypatch.setattr(interpreter, "_get_np_dtype", _numpy_dtype(interpreter._get_np_dtype))
    monkeypatch.setattr(block_type, "__init__", _block_type_init(block_type.__init__))
    monkeypatch.setattr(tensor, "__init__", _tensor_init(tensor.__init__))
    options = interpreter.interpreter_builder.options
    # It computes whether integers overflow, and drops the answer unless it debugs.
    options = dataclasses.replace(options, sanitize_overflow=options.debug)
    monkeypatch.setattr(interpreter.interpreter_builder, "options", options)


def _prepared_call(prepare_and_call):
    """Calls a helper; the first of each module prepares ``triton.language`` for all of them."""
    prepared = set()

    def call(self, *args, **kwargs):
        if self.fn.__module__ in prepared:
            return self.rewrite()(*args, **kwargs)
        prepared.add(self.fn.__module__)
        return prepare_and_call(self, *args, **kwargs)

    return call


def _numpy_dtype(of_type):
    known = {}

    def numpy_dtype(dtype):
        name = dtype.scalar.name
        if name not in known:
            known[name] = of_type(dtype)
        return known[name]

    return numpy_dtype


def _block_type_init(init):
    known = {}

    def __init__(self, element_ty, shape):
        key = element_ty.name, *(getattr(size, "value", size) for size in shape)
        if key in known:
            vars(self).update(known[key])
        else:
            init(self, element_ty, shape)
            known[key] = vars(self).copy()

    return __init__


def _tensor_init(init):
    known = {}

    def __init__(self, handle, type):
        if type.name in known:
            self.handle, self.type, self.dtype = handle, type, type.scalar
            self.shape, self.numel = known[type.name]
        else:
            init(self, handle, type)
            known[type.name] = self.shape, self.numel

    return __init__
