"""The programs that run gpt-oss: what each reads, where it runs, and what becomes of MXFP4 there.

Source: docs/prepare.md has one line for each row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .machines import ADA, AMPERE, APPLE, BLACKWELL, CPU, HOPPER, MI300, OTHER, RDNA3, TURING, Machine
from .memory import LLAMA_CPP, LM_STUDIO, METAL, MLX, OLLAMA, RUN_LLAMA_CPP, TRANSFORMERS, VLLM

# What a consumer reads, as a word for people.
GGUF, HF_DIRECTORY, MLX_DIRECTORY, MODEL_BIN = "GGUF", "HF MXFP4 directory", "MLX directory", "model.bin"

ARTICLES = {
    GGUF: "a GGUF",
    HF_DIRECTORY: "an HF MXFP4 directory",
    MLX_DIRECTORY: "an MLX directory",
    MODEL_BIN: "a model.bin",
}

READS = {
    LLAMA_CPP: GGUF,
    OLLAMA: GGUF,
    LM_STUDIO: GGUF,
    VLLM: HF_DIRECTORY,
    TRANSFORMERS: HF_DIRECTORY,
    MLX: MLX_DIRECTORY,
    METAL: MODEL_BIN,
}

TITLES = {
    LLAMA_CPP: "llama.cpp",
    OLLAMA: "Ollama",
    LM_STUDIO: "LM Studio",
    VLLM: "vLLM",
    TRANSFORMERS: "transformers",
    MLX: "mlx-lm",
    METAL: "OpenAI's Metal program",
}

NATIVE, EMULATED, BF16 = "native", "emulated", "BF16"


@dataclass(frozen=True)
class Way:
    """How a consumer runs the experts on a family of machines.

    Args:
        experts: NATIVE: the hardware multiplies MXFP4; EMULATED: it stays packed in memory and kernels decode it;
            BF16: it is decoded when the model is loaded, and takes 3.8 times the memory.
        how: a clause for people.
        caution: what may go wrong; "" if nothing is known.
    """

    experts: str
    how: str
    caution: str = ""


_TRITON = "needs triton 3.4 or newer and the package `kernels`, which fetches a kernel; without them it decodes to BF16"
_UNFINISHED = "vLLM's guide for gpt-oss calls these cards work in progress"
_CUDA = Way(EMULATED, "its CUDA kernels decode MXFP4 blocks in registers, on any card since Turing")
_HIP = Way(EMULATED, "its HIP kernels decode MXFP4 blocks in registers")

_LLAMA_CPP = {
    TURING: Way(
        EMULATED,
        "its CUDA kernels decode MXFP4 blocks in registers, and what goes from layer to layer is float32",
        "with float16 residuals 120b overflows from layer 34 on; llama.cpp's are float32",
    ),
    AMPERE: _CUDA,
    ADA: _CUDA,
    HOPPER: _CUDA,
    BLACKWELL: Way(
        NATIVE,
        "builds for sm_120 multiply MXFP4 with the tensor cores themselves",
        "native products quantize activations to MXFP4 too, so results differ from other cards'",
    ),
    MI300: _HIP,
    RDNA3: _HIP,
    APPLE: Way(EMULATED, "its Metal kernels decode MXFP4 blocks in registers, and the file is mapped, not copied"),
    CPU: Way(EMULATED, "its kernels multiply MXFP4 blocks with Q8_0 activations, and the file is mapped, not copied"),
    OTHER: Way(EMULATED, "it has kernels for nearly every device, through CUDA, HIP, Vulkan or SYCL"),
}
_VLLM = {
    AMPERE: Way(EMULATED, "its Marlin kernels decode MXFP4 in registers, from sm_80 on"),
    ADA: Way(EMULATED, "its Marlin kernels decode MXFP4 in registers", _UNFINISHED),
    HOPPER: Way(EMULATED, "Triton's kernels decode MXFP4 in registers for Hopper's tensor cores"),
    BLACKWELL: Way(NATIVE, "FlashInfer's kernels multiply MXFP4 natively"),
    MI300: Way(EMULATED, "AITER's and Triton's kernels decode MXFP4 in registers"),
}
_TRANSFORMERS = {
    TURING: Way(EMULATED, "Triton kernels from sm_75 on", f"{_TRITON}; BF16 is slow on Turing and float16 overflows"),
    AMPERE: Way(EMULATED, "Triton kernels from sm_75 on", _TRITON),
    ADA: Way(EMULATED, "Triton kernels from sm_75 on", _TRITON),
    HOPPER: Way(EMULATED, "Triton kernels from sm_75 on", _TRITON),
    BLACKWELL: Way(EMULATED, "Triton kernels from sm_75 on", _TRITON),
    MI300: Way(BF16, "decoded to BF16 when it is loaded, to be safe: its MXFP4 kernels are made for CUDA"),
    RDNA3: Way(BF16, "decoded to BF16 when it is loaded, to be safe: its MXFP4 kernels are made for CUDA"),
    APPLE: Way(BF16, "decoded to BF16 when it is loaded: it has no MXFP4 kernels for Metal"),
    CPU: Way(BF16, "decoded to BF16 when it is loaded, unless a kernel is fetched with use_kernels=True"),
}
_MLX = {APPLE: Way(EMULATED, "its Metal kernels decode MXFP4 in registers")}
_METAL = {
    APPLE: Way(EMULATED, "its kernels decode MXFP4 in registers", "a reference implementation, not for production")
}

WAYS: dict[str, dict[str, Way]] = {
    LLAMA_CPP: _LLAMA_CPP,
    OLLAMA: _LLAMA_CPP,
    LM_STUDIO: _LLAMA_CPP,
    VLLM: _VLLM,
    TRANSFORMERS: _TRANSFORMERS,
    MLX: _MLX,
    METAL: _METAL,
}

# Architectures that differ from the others of their family.
_BY_ARCH = {
    **{(consumer, arch): _CUDA for consumer in RUN_LLAMA_CPP for arch in ("sm_100", "sm_103")},
    **{(VLLM, arch): replace(_VLLM[BLACKWELL], caution=_UNFINISHED) for arch in ("sm_120", "sm_121")},
}

# Consumers that `--for` may name.
NAMED = (OLLAMA, LLAMA_CPP, LM_STUDIO, VLLM, TRANSFORMERS, MLX)

# Architectures that servers have: there vLLM is the default, else llama.cpp.
SERVER_ARCHES = ("sm_80", "sm_90", "sm_100", "sm_103", "gfx942", "gfx950")


def way_of(consumer: str, machine: Machine) -> Way | None:
    """How the consumer runs there; None if it does not."""
    return _BY_ARCH.get((consumer, machine.arch)) or WAYS[consumer].get(machine.family)


def default_consumer(arch: str) -> str:
    """What to run on a machine when only the machine was named."""
    return VLLM if arch in SERVER_ARCHES else LLAMA_CPP
