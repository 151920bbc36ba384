"""Peak memory of one call, results excluded: ``python bench/memory.py OPERATION PROVIDER N V [H]`` prints bytes.

On a CPU it is the high-water mark of resident memory, so the call needs a process that has done little else: memory
that an earlier call has freed could be used again without raising the mark.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from common import REHEARSAL, ROOT
from torch import Tensor

from ssdfast.memory_usage import resident_bytes

SMALL = (8, 500, 64)  # of the call that loads code and starts threads before the measured one


def bytes_of(answer: Any) -> int:
    """Bytes of the tensors in an answer."""
    if isinstance(answer, Tensor):
        return answer.numel() * answer.element_size()
    if is_dataclass(answer):
        return sum(bytes_of(getattr(answer, field.name)) for field in fields(answer))
    if isinstance(answer, tuple | list):
        return sum(map(bytes_of, answer))
    return 0


def peak_on_cpu(call: Callable[[], Any]) -> int:
    """Bytes at the peak of the call, without those before it and its answer. Needs Linux and a fresh process."""
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call could use memory that is free but still counted
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    answer = call()
    return max(0, resident_bytes("VmHWM") - before - bytes_of(answer))


def peak_on_gpu(call: Callable[[], Any]) -> int:
    """Bytes at the peak of the call, without those before it and its answer, by torch's allocator; 0 in a rehearsal."""
    if REHEARSAL:
        call()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    answer = call()
    torch.cuda.synchronize()
    return max(0, torch.cuda.max_memory_allocated() - before - bytes_of(answer))


def peak_in_own_process(operation: str, provider: str, shape: tuple[int, ...]) -> int:
    """``peak_on_cpu`` of a provider of bench/OPERATION.py, prepared tensors included, with this process's threads."""
    return int(python("bench/memory.py", operation, provider, *map(str, shape)).split()[-1])


def python(*args: str) -> str:
    """The output of a fresh Python with this process's number of threads. Raises RuntimeError if it fails."""
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(args)[:60]} failed:\n{done.stderr}")
    return done.stdout


def main() -> None:
    operation, name = sys.argv[1:3]
    shape = tuple(map(int, sys.argv[3:]))
    benchmark = importlib.import_module(operation)

    def prepared(shape: tuple[int, ...]) -> tuple[Any, Any]:
        inputs = benchmark.inputs(*shape)
        provider = next(p for p in benchmark.providers(inputs) if p.name == name)
        return provider, inputs if provider.rows is None else inputs.rows(provider.rows)

    provider, inputs = prepared(SMALL[: len(shape)])
    provider.run(inputs)
    provider, inputs = prepared(shape)
    if provider.compiled:
        provider.run(inputs)  # a compiler takes memory too, once
    print(peak_on_cpu(lambda: provider.run(inputs)) + bytes_of(provider.prepared))


if __name__ == "__main__":
    main()
