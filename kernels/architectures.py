"""The GPUs there are: one row per architecture, with what Triton 3.9 makes of a matrix product there.

A row is a fact that `make aot` reproduces without the card: what compiles, and to which instruction. `proof` names the
architecture that every kernel is compiled for; its relatives share the instructions and differ in shared memory.

Shared memory is the most that one program may have, as the vendors give it. Triton does not check it.

Source: CUDA C++ Programming Guide, table of compute capabilities; LLVM, User Guide for AMDGPU Backend; Triton 3.9.0.
"""

from __future__ import annotations

from dataclasses import dataclass

# What an architecture can do with packed weights, best first.
HARDWARE = "hardware"  # e2m1 becomes bfloat16 by an instruction
UPCAST = "upcast"  # … by integer instructions, in registers; then tensor cores
SCALAR = "scalar"  # Triton compiles, but uses no tensor cores
NONE = "none"  # no kernel of ours runs

# How products that quantize activations are called by `moe.moe` -> what activations become. Where operands of two kinds
# are refused, mxfp8_wide makes e4m3 of the weights' codes, in registers and exactly; scales stay as they are.
NATIVE = {"mxfp8": "MXFP8", "mxfp8_wide": "MXFP8", "mxfp4": "MXFP4"}


@dataclass(frozen=True)
class Architecture:
    """One row.

    Args:
        name: as Triton and the vendor's tools have it: "sm_86", "gfx942".
        backend: "cuda" or "hip".
        cards: what it is sold as.
        rung: HARDWARE, UPCAST, SCALAR or NONE.
        matmul: the float that torch.matmul is given there, if it holds every value.
        dots: the instructions a Triton product may become; empty where there are none.
        shared_bytes: shared memory of one program, at most.
        proof: the architecture that is compiled in its place; "" if none is.
        native: keys of NATIVE, the ladder's choice first; empty where no product takes MXFP4 weights themselves.
            Few tokens are enough, as long as the weights are the left operand.
        reason: why the rung is NONE.
    """

    name: str
    backend: str
    cards: str
    rung: str
    matmul: str
    dots: tuple[str, ...] = ()
    shared_bytes: int = 0
    proof: str = ""
    native: tuple[str, ...] = ()
    reason: str = ""


_MMA, _WGMMA, _TCGEN05 = ("mma.sync",), ("wgmma", "mma.sync"), ("tcgen05.mma", "mma.sync")
_MFMA, _WMMA = ("v_mfma",), ("v_wmma",)
_MIXED, _ALIKE = ("mxfp8", "mxfp4"), ("mxfp8_wide", "mxfp4")
_BF16, _F16, _F32 = "bfloat16", "float16", "float32"

_UNTRIED = "our kernels are not compiled for it"
_NO_TENSOR_CORES = "it has no tensor cores, and our kernels are not compiled for it"
_REFUSED = "Triton 3.9 does not compile for it"

_NVIDIA = (
    Architecture("sm_60", "cuda", "P100", NONE, _F32, reason=_NO_TENSOR_CORES),
    Architecture("sm_61", "cuda", "GTX 10, P4, P40", NONE, _F32, reason=_NO_TENSOR_CORES),
    Architecture("sm_70", "cuda", "V100, Titan V", SCALAR, _F16, (), 98_304, "sm_75"),
    Architecture("sm_72", "cuda", "Jetson Xavier", NONE, _F32, reason=_UNTRIED),
    Architecture("sm_75", "cuda", "T4, RTX 20", SCALAR, _F16, (), 65_536, "sm_75"),
    Architecture("sm_80", "cuda", "A100, A30", UPCAST, _BF16, _MMA, 166_912, "sm_80"),
    Architecture("sm_86", "cuda", "RTX 30, A10, A40", UPCAST, _BF16, _MMA, 101_376, "sm_86"),
    Architecture("sm_87", "cuda", "Jetson Orin", UPCAST, _BF16, _MMA, 166_912, "sm_80"),
    Architecture("sm_88", "cuda", "–", NONE, _BF16, reason=_REFUSED),
    Architecture("sm_89", "cuda", "RTX 40, L4, L40S", UPCAST, _BF16, _MMA, 101_376, "sm_89"),
    Architecture("sm_90", "cuda", "H100, H200, GH200", UPCAST, _BF16, _WGMMA, 232_448, "sm_90"),
    Architecture("sm_100", "cuda", "B200, GB200", HARDWARE, _BF16, _TCGEN05, 232_448, "sm_100", _MIXED),
    Architecture("sm_101", "cuda", "Jetson Thor, as CUDA 12 calls it", NONE, _BF16, reason=_REFUSED),
    Architecture("sm_103", "cuda", "B300, GB300", HARDWARE, _BF16, _TCGEN05, 232_448, "sm_100", _MIXED),
    Architecture("sm_110", "cuda", "Jetson Thor", NONE, _BF16, reason=_UNTRIED),
    Architecture("sm_120", "cuda", "RTX 50, RTX PRO Blackwell", HARDWARE, _BF16, _MMA, 101_376, "sm_120", _ALIKE),
    Architecture("sm_121", "cuda", "GB10 (DGX Spark)", HARDWARE, _BF16, _MMA, 101_376, "sm_120", _ALIKE),
)
_AMD = (
    Architecture("gfx906", "hip", "MI50, MI60, Radeon VII", NONE, _F32, reason=_REFUSED),
    Architecture("gfx908", "hip", "MI100", NONE, _BF16, reason=_UNTRIED),
    Architecture("gfx90a", "hip", "MI210, MI250", UPCAST, _BF16, _MFMA, 65_536, "gfx942"),
    Architecture("gfx942", "hip", "MI300A, MI300X, MI325X", UPCAST, _BF16, _MFMA, 65_536, "gfx942"),
    Architecture("gfx950", "hip", "MI350X, MI355X", HARDWARE, _BF16, _MFMA, 163_840, "gfx950", _MIXED),
    Architecture("gfx1030", "hip", "RX 6800, RX 6900", NONE, _F32, reason=_REFUSED),
    Architecture("gfx1100", "hip", "RX 7900", UPCAST, _BF16, _WMMA, 65_536, "gfx1100"),
    Architecture("gfx1101", "hip", "RX 7700, RX 7800", UPCAST, _BF16, _WMMA, 65_536, "gfx1100"),
    Architecture("gfx1102", "hip", "RX 7600", UPCAST, _BF16, _WMMA, 65_536, "gfx1100"),
    Architecture("gfx1150", "hip", "Radeon 890M", UPCAST, _BF16, _WMMA, 65_536, "gfx1100"),
    Architecture("gfx1151", "hip", "Radeon 8060S (Strix Halo)", UPCAST, _BF16, _WMMA, 65_536, "gfx1100"),
    Architecture("gfx1200", "hip", "RX 9060", UPCAST, _BF16, _WMMA, 65_536, "gfx1201"),
    Architecture("gfx1201", "hip", "RX 9070", UPCAST, _BF16, _WMMA, 65_536, "gfx1201"),
    Architecture("gfx1250", "hip", "–", NONE, _BF16, reason=_UNTRIED),
)

ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in (*_NVIDIA, *_AMD)}
