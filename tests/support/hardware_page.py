"""The tables of docs/hardware.md that follow from the ladder. `make aot` prints them."""

from __future__ import annotations

from gptoss_convert.kernels.architectures import ARCHITECTURES, NATIVE
from gptoss_convert.kernels.device import ENCODINGS, Device, parse_arch, path_for
from gptoss_convert.kernels.ladder import NO_KERNEL, weights_for


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> list[str]:
    return [row(*cells), "|" + "---|" * len(cells)]


def cell(encoding: str, device: Device) -> str:
    """The path for many tokens and the float that it multiplies."""
    path = path_for(encoding, device, tokens=512)
    return f"{path.name}, {path.dot}"


def ladder_table() -> list[str]:
    """A row for each architecture, then those for what is no GPU."""
    lines = head(
        "architecture", "sold as", "MXFP4", "ggml's blocks", "Q2_K, Q3_K, MLX's groups", "native", "compiled as"
    )
    for architecture in ARCHITECTURES.values():
        device = parse_arch(architecture.name)
        cells = (cell(encoding, device) for encoding in ("MXFP4", "Q8_0", "Q2_K"))
        native = ", ".join(f"{NATIVE[dot]} × MXFP4" for dot in architecture.native)
        lines.append(
            row(architecture.name, architecture.cards, *cells, native, architecture.proof or architecture.reason)
        )
    for name, sold in (("cpu", "a processor; a GPU without Triton"), ("interpret", "Triton's interpreter")):
        cells = (cell(encoding, parse_arch(name)) for encoding in ("MXFP4", "Q8_0", "Q2_K"))
        lines.append(row(name, sold, *cells, "", ""))
    return lines


def encoding_table() -> list[str]:
    """A row for each encoding."""
    lines = head("encoding", "bits per weight", "how kernels read it", "held exactly by")
    for name in ENCODINGS:
        weights = weights_for(name)
        how = "decoded before the product: there is no kernel" if weights.kernel == NO_KERNEL else weights.how
        exact = ", ".join(weights.exact)
        lines.append(row(name, f"{weights.stored_bits:g}", how, exact))
    return lines
