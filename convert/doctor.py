"""What this machine, or a named architecture, does with each encoding: `gptoss-convert doctor`.

Figures are of weights only: activations and a KV cache come on top.
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from .. import __version__
from ..kernels.device import ENCODINGS, Device, Path, devices, memory_bytes, parse_arch, path_for, processor, version_of
from ..kernels.ladder import GEMV_TOKENS, TRITON, Weights, weights_for
from ..model.config import GptOssConfig, parse_config
from ..model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from ..model.inventory import CanonicalTensor, dimensions, inventory
from .render import size

_MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
_FEW, _MANY = "few", "many"
_MANY_TOKENS = 512


def diagnose(arch: str | None = None) -> dict[str, Any]:
    """The machine, its devices, and for each device and encoding the path, why, and what it takes, as JSON data.

    Args:
        arch: an architecture to be told about instead of this machine's devices, such as "sm_75".

    Raises:
        UsageError: there is no such architecture.
    """
    found = devices() if arch is None else [parse_arch(arch)]
    ram = memory_bytes()
    return {
        "version": __version__,
        "machine": {"system": platform.platform(), "processor": processor(), "memory_bytes": ram},
        "python": platform.python_version(),
        **{package: version_of(package) for package in ("torch", "triton", "numba")},
        "tested_triton": TRITON,
        "few_tokens": GEMV_TOKENS,
        "devices": [asdict(device) | {"paths": _paths(device)} for device in found],
        "models": {name: _needs(parse_config(config), ram, found) for name, config in _MODELS.items()},
    }


def _paths(device: Device) -> list[dict[str, Any]]:
    """One entry for each encoding, or two where it matters how many tokens are multiplied at once."""
    rows = []
    for encoding in ENCODINGS:
        few, many = (path_for(encoding, device, tokens=tokens) for tokens in (1, _MANY_TOKENS))
        if few == many:
            rows.append(_row(encoding, "any", few))
        else:
            rows += [_row(encoding, _FEW, few), _row(encoding, _MANY, many)]
    return rows


def _row(encoding: str, tokens: str, path: Path) -> dict[str, Any]:
    return {
        "encoding": encoding,
        "tokens": tokens,
        "path": path.name,
        "dot": path.dot,
        "emulated": path.emulated,
        "native": path.native,
        "why": path.why,
        "costs": path.costs,
        "stored_bytes_per_weight": path.stored_bits / 8,
        "used_bytes_per_weight": path.used_bits / 8,
    }


def _needs(config: GptOssConfig, ram: int | None, found: list[Device]) -> list[dict[str, Any]]:
    """Bytes of a model whose experts have each encoding, everything else as published, and where they fit."""
    sizes, tensors, rows = dimensions(config), list(inventory(config).values()), []
    for encoding in ENCODINGS:
        weights = weights_for(encoding)
        if sizes["hidden"] % weights.block or sizes["intermediate"] % weights.block:
            continue
        total = sum(_bytes(tensor, weights) for tensor in tensors)
        layer = sum(_bytes(tensor, weights) for tensor in tensors if tensor.name.startswith("layers.0."))
        rows.append(
            {
                "encoding": encoding,
                "bytes": total,
                "layer_bytes": layer,
                "fits_memory": _fits(total, ram),
                "layer_fits_memory": _fits(layer, ram),
                "devices": [_on(device, encoding, total, sizes) for device in found],
            }
        )
    return rows


def _bytes(tensor: CanonicalTensor, experts: Weights) -> int:
    """Bytes of a tensor: the official models have everything but the experts in BF16."""
    bits = experts.stored_bits if tensor.role == "experts" else 16
    return round(tensor.n_elements * bits) // 8


def _on(device: Device, encoding: str, total: int, sizes: dict[str, int]) -> dict[str, Any]:
    """What the weights take on a device: as stored, and an expert beside them where one is decoded first."""
    path = path_for(encoding, device, tokens=_MANY_TOKENS)
    expert = 3 * sizes["hidden"] * sizes["intermediate"]
    decoded = round(expert * path.used_bits / 8) if path.used_bits > path.stored_bits else 0
    needed = total + decoded
    return {"bytes": needed, "decoded_expert_bytes": decoded, "fits": _fits(needed, device.memory_bytes)}


def _fits(n_bytes: int, memory: int | None) -> bool | None:
    return None if memory is None else n_bytes <= memory


# --- for a terminal ----------------------------------------------------------------------------------------------


def doctor_lines(report: dict[str, Any]) -> list[str]:
    """The machine, then each device with its paths; encodings that go the same way share a paragraph."""
    versions = ", ".join(f"{name} {report[name] or 'missing'}" for name in ("torch", "triton", "numba"))
    machine = report["machine"]
    lines = [
        f"gptoss-convert {report['version']}, Python {report['python']}, {versions}",
        f"{machine['system']}, {machine['processor']}, {_memory(machine['memory_bytes'])}",
    ]
    if report["triton"] is None:
        lines.append("note: without Triton, which has no build for every system, nothing runs on a GPU")
    elif report["triton"] != report["tested_triton"]:
        lines.append(f"note: the paths below were tested with triton {report['tested_triton']}")
    for device in report["devices"]:
        lines += ["", *_device_lines(device, report["few_tokens"])]
    return lines


def _memory(n_bytes: int | None) -> str:
    return "memory not known" if n_bytes is None else f"{size(n_bytes)} of memory"


def _device_lines(device: dict[str, Any], few_tokens: int) -> list[str]:
    what = device["arch"] or device["backend"]
    lines = [f"{device['name']} ({what}): {_memory(device['memory_bytes'])}"]
    tokens = {"any": "", _FEW: f", up to {few_tokens} tokens", _MANY: f", more than {few_tokens} tokens"}
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in device["paths"]:
        why = row["why"].replace(row["encoding"], "them")
        alike.setdefault((row["path"], row["dot"], tokens[row["tokens"]], why), []).append(row)
    for (path, dot, when, why), rows in alike.items():
        lines.append(f"  {', '.join(row['encoding'] for row in rows)}")
        lines.append(f"    path   {path}, products in {dot}{when}")
        lines.append(f"    why    {why}")
        if costly := [row for row in rows if row["costs"]]:
            lines.append(f"    costs  {_cost(costly)}")
    return lines


def _cost(rows: list[dict[str, Any]]) -> str:
    """What decoding first costs encodings that go the same way."""
    stored = sorted({round(row["stored_bytes_per_weight"], 2) for row in rows})
    used = rows[0]["used_bytes_per_weight"]
    range_ = f"{stored[0]:.2f}" if len(stored) == 1 else f"{stored[0]:.2f} to {stored[-1]:.2f}"
    return f"{used:g} bytes per weight of an expert while it is multiplied, where {range_} are stored"


def need_table(report: dict[str, Any]) -> Table:
    """What models take with their experts in each encoding, and whether that fits."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("experts in", no_wrap=True)
    for model in report["models"]:
        table.add_column(model, justify="right", no_wrap=True)
        table.add_column("a layer", justify="right", no_wrap=True)
        for place in _places(report):
            table.add_column(Text(place), no_wrap=True)
    for rows in zip(*report["models"].values(), strict=True):
        cells = [rows[0]["encoding"]]
        for row in rows:
            cells += [size(row["bytes"]), size(row["layer_bytes"]), _fit(row["fits_memory"], row["layer_fits_memory"])]
            cells += [_fit(on["fits"]) for on in _gpus(report, row["devices"])]
        table.add_row(*cells)
    return table


def _places(report: dict[str, Any]) -> list[str]:
    return [
        f"here ({size(report['machine']['memory_bytes'] or 0)})",
        *(f"{device['arch']} ({size(device['memory_bytes'])})" for device in _gpus(report, report["devices"])),
    ]


def _gpus(report: dict[str, Any], values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `values`, one for each device, that belong to GPUs of known memory."""
    known = (bool(device["arch"]) and device["memory_bytes"] is not None for device in report["devices"])
    return [value for value, is_known in zip(values, known, strict=True) if is_known]


def _fit(fits: bool | None, layer_fits: bool | None = False) -> str:
    if fits is None:
        return "?"
    if fits:
        return "fits"
    return "a layer at a time" if layer_fits else "too large"
