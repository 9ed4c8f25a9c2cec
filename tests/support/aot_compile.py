"""Compiles kernels of the catalogue for one architecture, which need not be there, and reads what came out.

A process of its own, as a target that the compiler cannot do may end it: each result is a line of JSON in OUT as soon
as it is known. TRITON_INTERPRET must not be set: it would replace the compiler.

    aot_compile.py TARGET OUT KERNEL …
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gptoss_convert.kernels.catalogue import KERNELS

# What a dot becomes, and which text of the compiled kernel tells.
INSTRUCTIONS = {
    "mma.sync": r"\bmma\.sync",
    "wgmma": r"\bwgmma\.mma_async",
    "tcgen05.mma": r"\btcgen05\.mma",
    "v_mfma": r"\bv_mfma_",
    "v_wmma": r"\bv_wmma_",
}
# Products that take scales themselves, and of which kinds of elements.
BLOCK_SCALED = r"\bkind::(\w+)\.block_scale|\bv_mfma_scale_f32_\d+x\d+x\d+_(\w+)"
CONVERSIONS = r"\bcvt\.rn\.bf16x2\.e2m1x2|\bv_cvt_scale\w*_bf16_fp4"


def target_of(name: str) -> GPUTarget:
    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)


def compile_entry(entry: Any, target: str) -> dict[str, Any]:
    """Everything the matrix shows of one kernel on one target."""
    source = ASTSource(entry.function, entry.signature, entry.constexprs, entry.attrs())
    options = {"num_warps": entry.num_warps, "num_stages": entry.num_stages}
    compiled = triton.compile(source, target=target_of(target), options=options)
    text = compiled.asm["ptx" if "ptx" in compiled.asm else "amdgcn"]
    read = nvidia_resources if "ptx" in compiled.asm else amd_resources
    return {
        "instructions": [name for name, pattern in INSTRUCTIONS.items() if re.search(pattern, text)],
        "scaled": sorted({match[1] or match[2] for match in re.finditer(BLOCK_SCALED, text)}),
        "converts": bool(re.search(CONVERSIONS, text)),
        "dots": sorted(dots(compiled.asm["ttir"])),
        "shared": compiled.metadata.shared,
        **read(compiled),
    }


def dots(ttir: str) -> set[tuple[str, int]]:
    """The products of a kernel, and the left operand's rows.

    "native" if both operands have scales, "scaled" if one has, else the type of the left one: f32, bf16, f16.
    """
    found = re.finditer(r"= tt\.dot(_scaled)?\b(.*): *tensor<(\d+)x\d+x(\w+)", ttir)
    kinds = ("", "scaled", "native")
    return {(kinds[match[2].count(" scale ")] or match[4], int(match[3])) for match in found}


def nvidia_resources(compiled: Any) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as directory:
        cubin = Path(directory) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        command = [str(tool), "--dump-resource-usage", str(cubin)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"registers": number(r"\bREG:(\d+)", usage), "spills": number(r"\bSTACK:(\d+)", usage)}


def amd_resources(compiled: Any) -> dict[str, int]:
    text = compiled.asm["amdgcn"]
    registers = number(r"\.vgpr_count: +(\d+)", text)
    return {"registers": registers, "spills": number(r"\.private_segment_fixed_size: +(\d+)", text)}


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


def main(target: str, out: str, *names: str) -> None:
    entries = {entry.name: entry for entry in KERNELS}
    with Path(out).open("a", encoding="utf-8") as file:
        for name in names:
            print(json.dumps({"kernel": name, "begun": True}), file=file, flush=True)
            try:
                result = compile_entry(entries[name], target)
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            print(json.dumps({"kernel": name, **result}), file=file, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
