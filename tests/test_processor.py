"""On a CPU with a matrix unit for bfloat16, that is the default."""

import torch

from ssdfast.processor import fast_dtype


def test_the_default_is_that_of_the_processor(monkeypatch):
    assert fast_dtype() == "float32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert fast_dtype() == "bfloat16"
