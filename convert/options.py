"""The arguments and options that commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DenseType(StrEnum):
    """Encodings of the matrices outside the experts."""

    auto = "auto"
    bf16 = "bf16"
    f16 = "f16"
    f32 = "f32"


class ExpertType(StrEnum):
    """Encodings of the experts."""

    mxfp4 = "mxfp4"
    bf16 = "bf16"
    f16 = "f16"
    f32 = "f32"


class ScaleRuleName(StrEnum):
    """How floats get the scales of their MXFP4 blocks."""

    exact = "exact"
    floor = "floor"
    ceil = "ceil"
    even = "even"


class DialectName(StrEnum):
    """Dialects of GGUF."""

    llama_cpp = "llama.cpp"
    ollama_legacy = "ollama-legacy"


class LayoutName(StrEnum):
    """Layouts of MXFP4 safetensors."""

    hf = "hf"
    original = "original"


class PresetName(StrEnum):
    """Shapes of synthetic checkpoints."""

    tiny = "tiny"
    small = "20b"
    large = "120b"


Source = Annotated[
    Path, typer.Argument(metavar="SRC", help="A directory, a GGUF file, or a Metal model file.", show_default=False)
]
NewDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless something fails.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written; write nothing.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not read the output back to prove it.")]
Tokenizer = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Take the tokenizer from here, not from SRC.", show_default=False, exists=True),
]
PadVocab = Annotated[
    bool, typer.Option("--pad-vocab", help="Add rows of zeros for tokens that a Metal file does not hold.")
]
ScaleRuleOption = Annotated[
    ScaleRuleName,
    typer.Option(help="How floats get MXFP4 scales; exact keeps what is exact, and rounds the rest by even."),
]
Like = Annotated[
    Path | None,
    typer.Option(metavar="ORIGINAL", help="Keep this checkpoint's blocks where values agree.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
