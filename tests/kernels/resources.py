"""The resources of each Triton kernel on a GPU, compiled ahead of time: no GPU is needed.

    python -m tests.kernels.resources

The launches are recorded from the host code, so that a kernel is compiled with the constants and warps that it ships
with. It prints registers per thread, shared memory per block and spills, for each target.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.runtime.jit import JITFunction, mangle_type

from ssdfast.kernels import LmHead, ProbeSpec, SamplingParams
from ssdfast.kernels.linear_probe_stats import triton as linear_backend
from ssdfast.kernels.linear_probe_stats.triton_tiling import TILINGS, Tiling
from ssdfast.kernels.probe_stats import triton as backend
from ssdfast.kernels.probe_stats.triton_vectors import Machine
from ssdfast.kernels.soft_label_ce import triton as soft_label_backend
from ssdfast.kernels.soft_label_ce.gradients import Gradients

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
MACHINES = {"sm_80": Machine(80), "sm_90": Machine(90), "sm_100": Machine(100), "gfx942": Machine(0, warp=64)}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Launch:
    """A kernel with everything that its machine code depends on."""

    fn: JITFunction
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, object], ...]
    aligned: tuple[int, ...]  # arguments that are multiples of 16
    num_warps: int
    num_stages: int | None

    def __str__(self) -> str:
        dtypes = {
            kind[1:] for name, kind in self.signature if name in ("a_ptr", "b_ptr", "z_ptr", "hidden_ptr", "grad_ptr")
        }
        constants = {
            k: v
            for k, v in self.constants
            if k.isupper() and k not in ("RATES", "ROOTS", "ROOT_OF", "RATE_OF", "SCALES")
        }
        return " ".join([self.fn.__name__, *dtypes, *(f"{k}={v}" for k, v in constants.items())])


@dataclass(frozen=True)
class Resources:
    registers: int
    shared_bytes: int
    spilled: int  # bytes of stack and local memory


def launches(target: str, n: int, v: int, dtype: torch.dtype, spec: ProbeSpec, pair: bool) -> list[Launch]:
    """The kernels that ``probe_stats`` launches for [n, v] logits, every row with a nucleus beyond its list."""
    logits = torch.zeros(n, v, dtype=dtype)
    with _recorded() as recorded, mock.patch.object(Machine, "for_device", return_value=MACHINES[target]):
        backend.probe_stats_packed(logits, logits if pair else None, torch.zeros(n, dtype=torch.int64), spec)
    return list(recorded)


def linear_launches(target: str, h: int, v: int, dtype: torch.dtype, spec: ProbeSpec) -> list[Launch]:
    """The kernels that ``linear_probe_stats`` adds for one model in one sweep, with the tiles of a target."""
    hidden, weight = torch.zeros(2, h, dtype=dtype), torch.zeros(v, h, dtype=dtype)
    head = LmHead(weight)
    with (
        _recorded() as recorded,
        mock.patch.object(Tiling, "for_device", return_value=TILINGS[target]),
        mock.patch.object(linear_backend, "from_logits"),
    ):
        linear_backend.linear_probe_stats_packed(hidden, head, None, None, torch.zeros(2, dtype=torch.int64), spec)
    return [launch for launch in recorded if launch.fn.__module__.startswith(linear_backend.__package__)]


def soft_label_launches(v: int, k: int, dtype: torch.dtype, gradient: bool, plain: bool = True) -> list[Launch]:
    """The kernel of ``soft_label_ce``, with and without a gradient; a head with everything if not plain."""
    hidden, weight = torch.zeros(2, 64, dtype=dtype), torch.zeros(v, 64, dtype=dtype)
    head = LmHead(weight) if plain else LmHead(weight, torch.zeros(v), 0.5, 30.0)
    ids, probs, rows = torch.zeros(2, k, dtype=torch.int64), torch.ones(2, k), torch.ones(2)
    gradients = Gradients.zeros(hidden, head, [gradient, False, False])
    with _recorded() as recorded:
        soft_label_backend.losses_and_gradients(hidden, head, ids, probs, rows, 0.0 if plain else 1e-4, gradients)
    return list(recorded)


@contextlib.contextmanager
def _recorded() -> Iterator[dict[Launch, None]]:
    """Launches of kernels, which do not run: the columns hold whatever makes the host code launch the most."""
    recorded: dict[Launch, None] = {}

    def record(
        fn: JITFunction, *args: object, grid: object, warmup: bool, num_warps: int, num_stages: int | None = None,
        **constants: object,
    ) -> None:  # fmt: skip
        recorded[_launch(fn, args, constants, num_warps, num_stages)] = None

    with _as_if_interpreted(), mock.patch.object(JITFunction, "run", record):
        yield recorded


@contextlib.contextmanager
def _as_if_interpreted() -> Iterator[None]:
    """The backend refuses CPU tensors unless the interpreter is on."""
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        yield


def _launch(
    fn: JITFunction, args: tuple, constants: dict[str, object], num_warps: int, num_stages: int | None
) -> Launch:
    """The signature and the specialisation that the just-in-time compiler would derive from these arguments."""
    signature, aligned = [], []
    for param, value in zip(fn.params, args, strict=False):
        if isinstance(value, torch.Tensor):
            signature.append((param.name, mangle_type(value)))
            multiple = not param.do_not_specialize_on_alignment
        elif value == 1 and not param.do_not_specialize:
            constants[param.name] = value
            multiple = False
        else:
            signature.append((param.name, mangle_type(value)))
            multiple = not param.do_not_specialize and value % 16 == 0
        if multiple:
            aligned.append(param.num)
    return Launch(fn, tuple(signature), tuple(constants.items()), tuple(aligned), num_warps, num_stages)


def compiled(launch: Launch, target: GPUTarget) -> CompiledKernel:
    kinds = dict(launch.signature)
    signature = {name: kinds.get(name, "constexpr") for name in launch.fn.arg_names}
    attrs = {(i,): [["tt.divisibility", 16]] for i in launch.aligned}
    source = ASTSource(launch.fn, signature, dict(launch.constants), attrs)
    options = {"num_warps": launch.num_warps} | ({"num_stages": launch.num_stages} if launch.num_stages else {})
    return triton.compile(source, target=target, options=options)


def measure(launch: Launch, target: GPUTarget) -> Resources:
    """Compiles a kernel and reads its resources from the assembler's output."""
    kernel = compiled(launch, target)
    if target.backend == "cuda":
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            output = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True)
        usage = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", output.stdout)}
        return Resources(usage["REG"], kernel.metadata.shared, usage["STACK"] + usage["LOCAL"])
    usage = {key: int(value) for key, value in re.findall(r"\.(\w+):\s+(\d+)", kernel.asm["amdgcn"])}
    return Resources(usage["vgpr_count"], kernel.metadata.shared, usage["private_segment_fixed_size"])


DEFAULT = ProbeSpec()
LONG_LIST = ProbeSpec(
    top_logprobs=128,
    eval_sampling=SamplingParams(0.6, 40, 0.9),
    train_sampling=SamplingParams(2.0, 64, 1.0),
    lse_temperatures=(3.0, 0.9),
)
SHORT = ProbeSpec(
    top_logprobs=1,
    eval_sampling=SamplingParams(1.0, 1, 1.0),
    train_sampling=SamplingParams(0.7, 1, 0.5),
    sweeps=1,
    lse_temperatures=(),
)
ONE_SWEEP = ProbeSpec(sweeps=1, lse_temperatures=())
TEMPERED = ProbeSpec(sweeps=1)
MANY = ProbeSpec(sweeps=1, lse_temperatures=(3.0, 0.9, 1.3, 1.7, 0.6))
CLASSES = ProbeSpec(token_class=torch.zeros(151_936, dtype=torch.uint8), n_classes=12, sweeps=1)


def shipped(target: str) -> list[Launch]:
    """Every kernel in every dtype, with one model and two, one sweep and two, short and long lists, odd row
    strides; labels with and without a gradient."""
    recorded: dict[Launch, None] = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        recorded |= dict.fromkeys(launches(target, 2, 151_936, dtype, DEFAULT, pair=True))
    for v, spec, pair in (
        (151_936, DEFAULT, False),
        (151_936, CLASSES, True),
        (151_669, SHORT, True),
        (248_320, LONG_LIST, True),
    ):
        recorded |= dict.fromkeys(launches(target, 2, v, torch.bfloat16, spec, pair))
    for h, v, dtype, spec in (
        (64, 4096, torch.bfloat16, TEMPERED),
        (2560, 4096, torch.bfloat16, TEMPERED),
        (2560, 4096, torch.bfloat16, ONE_SWEEP),
        (2560, 4096, torch.float16, TEMPERED),
        (592, 5003, torch.bfloat16, MANY),
        (8192, 5120, torch.bfloat16, TEMPERED),
    ):
        recorded |= dict.fromkeys(linear_launches(target, h, v, dtype, spec))
    for v, k, dtype, gradient, plain in (
        (151_936, 20, torch.bfloat16, True, True),
        (151_936, 20, torch.float32, True, True),
        (151_936, 20, torch.float32, False, True),
        (151_669, 1, torch.bfloat16, True, True),
        (151_669, 128, torch.bfloat16, True, False),
        (151_669, 1000, torch.float32, True, False),
    ):
        recorded |= dict.fromkeys(soft_label_launches(v, k, dtype, gradient, plain))
    return sorted(recorded, key=str)  # processes of a run must agree on the order


if __name__ == "__main__":
    for name, target in TARGETS.items():
        print(name)
        for launch in shipped(name):
            r = measure(launch, target)
            size = f"{r.registers:5} registers {r.shared_bytes:7} shared bytes {r.spilled:5} spilled"
            print(f"    {size}  {launch.num_warps} warps  {launch}")
