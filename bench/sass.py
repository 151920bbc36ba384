"""The machine code of a compiled kernel: its instructions, the pipe of each, its loops and its resources.

An instruction's control field (stall count, the scoreboards that it sets and waits for) is in bits 105 to 125 of its
128, as Jia et al. describe it for Volta ("Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking", 2018);
later generations kept the layout. The pipes follow the Nsight Compute Kernel Profiling Guide, section "Pipelines".
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import triton

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

_OPCODES = {
    "FMA": "FFMA FADD FMUL FFMA32I FADD32I FMUL32I HFMA2 HADD2 HMUL2 HFMA2_32I HADD2_32I HMUL2_32I FFMA2 FADD2 FMUL2",
    "FMA_HEAVY": "IMAD IMUL IDP IDP4A IMAD32I",
    "XU": "MUFU I2F F2I F2F POPC FLO BREV FRND I2I",
    "LSU": "LDG STG LDS STS LDSM STSM ATOM ATOMS ATOMG RED REDG REDS LDL STL LD ST S2R LDGSTS MATCH LDC MEMBAR "
    "CCTL SYNCS LDGDEPBAR ARRIVES UTMALDG UBLKCP",
    "SHFL": "SHFL",
    "BAR": "BAR",
    "FP64": "DADD DMUL DFMA DSETP DMNMX",
    "TENSOR": "HMMA HGMMA IMMA QGMMA IGMMA UTCHMMA UTCQMMA",
    "CONTROL": "BRA EXIT BSSY BSYNC BREAK CALL RET NOP WARPSYNC DEPBAR BMOV YIELD NANOSLEEP JMP BRX KILL ERRBAR "
    "ACQBULK PREEXIT ENDCOLLECTIVE WARPGROUP WARPGROUPSET RPCMOV BPT",
}
PIPES = (*_OPCODES, "UNIFORM", "ALU")
_PIPE_OF = {opcode: pipe for pipe, opcodes in _OPCODES.items() for opcode in opcodes.split()}
_UNIFORM = re.compile(r"U[A-Z]|R2UR|S2UR|VOTEU|REDUX|CS2UR")
_WIDTH = re.compile(r"\.(U8|S8|U16|S16|64|128|256)\b")
_WIDTH_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_INSTRUCTION = re.compile(
    r"/\*([0-9a-f]{4,6})\*/\s+(@!?U?P[T0-9]+\s+)?([A-Z0-9_][A-Za-z0-9_.]*)\s*([^;]*);\s*/\* 0x[0-9a-f]{16} \*/"
)
_UPPER_WORD = re.compile(r"^\s*/\* 0x([0-9a-f]{16}) \*/\s*$")


@dataclass
class Instruction:
    address: int
    predicated: bool
    opcode: str  # with its modifiers
    operands: str
    stall: int = 1  # cycles before the warp's next instruction
    sets: int = 7  # the scoreboard that its result clears; 7 for none
    frees: int = 7  # the scoreboard that reading its operands clears
    waits: int = 0  # a bit for each scoreboard that must be clear

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def pipe(self) -> str:
        return _PIPE_OF.get(self.name) or ("UNIFORM" if _UNIFORM.match(self.name) else "ALU")

    @property
    def bytes(self) -> int:
        """Of a memory access, per thread."""
        width = _WIDTH.search(self.opcode)
        return _WIDTH_BYTES[width.group(1)] if width else 4

    @property
    def target(self) -> int | None:
        """The address that a branch goes to."""
        address = re.search(r"0x([0-9a-f]+)\s*$", self.operands.strip())
        return int(address.group(1), 16) if address and self.name in ("BRA", "JMP") else None


def disassemble(cubin: bytes) -> list[Instruction]:
    code: list[Instruction] = []
    for line in _cuobjdump(cubin, "--dump-sass").splitlines():
        if match := _INSTRUCTION.search(line):
            address, predicate, opcode, operands = match.groups()
            code.append(Instruction(int(address, 16), predicate is not None, opcode, operands))
        elif (match := _UPPER_WORD.match(line)) and code:
            control = int(match.group(1), 16)
            last = code[-1]
            last.stall, last.sets = control >> 41 & 15, control >> 46 & 7
            last.frees, last.waits = control >> 49 & 7, control >> 52 & 63
    while code and code[-1].name == "NOP":
        code.pop()
    if code and code[-1].target == code[-1].address:  # the trap behind the end
        code.pop()
    return code


def resource_usage(cubin: bytes) -> dict[str, int]:
    """REG per thread; STACK, LOCAL and SHARED in bytes."""
    return {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", _cuobjdump(cubin, "-res-usage"))}


def _cuobjdump(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Loop:
    first: int
    last: int  # the address of the branch back

    def __contains__(self, instruction: Instruction) -> bool:
        return self.first <= instruction.address <= self.last


def loops(code: list[Instruction]) -> list[Loop]:
    """Longest first; several branches back to one address are one loop.

    Behind the exit are the rare ways of divisions and of shuffles: entered from elsewhere, they branch back and are no
    loops.
    """
    end = _last_exit(code)
    branches = [i for i in code if i.target is not None]
    last_of: dict[int, int] = {}
    for i in branches:
        first = i.target
        if first is None or first >= i.address:
            continue
        entries = [x for x in branches if not first <= x.address <= i.address and first < (x.target or 0) <= i.address]
        if i.address < end or not entries:
            last_of[first] = max(last_of.get(first, 0), i.address)
    return [Loop(*span) for span in sorted(last_of.items(), key=lambda span: span[0] - span[1])]


def _last_exit(code: list[Instruction]) -> int:
    return max((i.address for i in code if i.name == "EXIT"), default=code[-1].address)


def issued(code: list[Instruction], trips: Mapping[Loop, int]) -> list[Instruction]:
    """What a warp issues to its exit if no branch but those back is taken, and each loop runs so many times."""
    end = max(_last_exit(code), *(loop.last for loop in trips), 0)
    return _repeated([i for i in code if i.address <= end], sorted(trips, key=lambda loop: loop.first), trips)


def _repeated(code: list[Instruction], inside: list[Loop], trips: Mapping[Loop, int]) -> list[Instruction]:
    out: list[Instruction] = []
    at = code[0].address if code else 0
    for loop in inside:
        if loop.first >= at:  # not inside the one before
            out += [i for i in code if at <= i.address < loop.first]
            nested = [
                other for other in inside if other != loop and loop.first <= other.first <= other.last <= loop.last
            ]
            out += _repeated([i for i in code if i in loop], nested, trips) * trips[loop]
            at = loop.last + 1
    return out + [i for i in code if i.address >= at]


def streaming_loops(code: list[Instruction]) -> list[Loop]:
    """The innermost loops that read at least 16 bytes per thread from global memory, in the order of the code."""
    all_loops = loops(code)
    streaming = [
        loop
        for loop in all_loops
        if any(i.name in ("LDG", "LDGSTS") and i.bytes >= 16 for i in code if i in loop)
        and not any(loop.first < other.first and other.last < loop.last for other in all_loops)
    ]
    return sorted(streaming, key=lambda loop: loop.first)
