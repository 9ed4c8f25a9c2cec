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


class DeviceName(StrEnum):
    """Where validation runs layers."""

    auto = "auto"
    cuda = "cuda"
    cpu = "cpu"
    interpret = "interpret"


class LayoutName(StrEnum):
    """Layouts of MXFP4 safetensors."""

    hf = "hf"
    original = "original"


class DepthName(StrEnum):
    """How deep two models are compared."""

    tensors = "tensors"
    layers = "layers"
    logits = "logits"


class ConsumerName(StrEnum):
    """Programs whose arithmetic is known."""

    llama_cpp = "llama.cpp"
    mlx = "mlx"
    transformers = "transformers"


class PurposeName(StrEnum):
    """What a checkpoint is prepared for: machines by architecture, programs, or whatever is here."""

    ampere = "ampere"
    turing = "turing"
    ada = "ada"
    hopper = "hopper"
    blackwell = "blackwell"
    mi300 = "mi300"
    rdna3 = "rdna3"
    apple = "apple"
    cpu = "cpu"
    ollama = "ollama"
    llama_cpp = "llama.cpp"
    lm_studio = "lm-studio"
    vllm = "vllm"
    transformers = "transformers"
    mlx = "mlx"
    auto = "auto"


class PresetName(StrEnum):
    """Shapes of synthetic checkpoints."""

    tiny = "tiny"
    small = "20b"
    large = "120b"


# Rich takes brackets in help for markup.
_HUB = "org/name@revision on the Hugging Face Hub"
Source = Annotated[
    str,
    typer.Argument(metavar="SRC", help=f"A directory, a GGUF file, a Metal model file, or {_HUB}.", show_default=False),
]
NewDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing unless something fails.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written; write nothing.")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not read the output back to prove it.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Take the tokenizer from this directory or id, not from the checkpoint.", show_default=False
    ),
]
PadVocab = Annotated[
    bool, typer.Option("--pad-vocab", help="Add rows of zeros for tokens that a Metal file does not hold.")
]
ScaleRuleOption = Annotated[
    ScaleRuleName,
    typer.Option(help="How floats get scales; exact keeps what is exact and rounds the rest by even."),
]
Like = Annotated[
    str | None,
    typer.Option(metavar="ORIGINAL", help="Keep this checkpoint's blocks where values agree.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
NewGguf = Annotated[Path, typer.Argument(metavar="OUT.gguf", help="The file to write.", show_default=False)]
NewMetal = Annotated[Path, typer.Argument(metavar="OUT.bin", help="The file to write.", show_default=False)]
Dense = Annotated[
    DenseType, typer.Option("--type", help="Encoding of attention and embeddings; auto keeps the stored one.")
]
Experts = Annotated[ExpertType, typer.Option(help="Encoding of the experts; mxfp4 moves the stored blocks undecoded.")]
SplitMaxSize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Split into files of at most SIZE of tensors, such as 5G or 500M."),
]
Dialect = Annotated[
    DialectName, typer.Option(metavar="NAME", help="llama.cpp, or ollama-legacy: Ollama's before it ran llama.cpp.")
]
Layout = Annotated[LayoutName, typer.Option(help="Hugging Face's layout, or OpenAI's own.")]
ShardPlan = Annotated[
    str, typer.Option(metavar="official|SIZE", help="The official shards, or files of at most SIZE of tensors.")
]

ToValidate = Annotated[
    str | None, typer.Argument(metavar="PATH", help=f"The checkpoint to run: a path, or {_HUB}.", show_default=False)
]
Other = Annotated[str | None, typer.Argument(metavar="OTHER", help="Another, to compare with it.", show_default=False)]
Layers = Annotated[str, typer.Option(metavar="all|0,1,…", help="Which layers to measure.")]
Tokens = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="How many tokens; twice the sliding window if not given.", show_default=False
    ),
]
Device = Annotated[DeviceName, typer.Option(help="Where layers run; auto takes a GPU whose kernels pass their test.")]
SelfTest = Annotated[
    bool, typer.Option("--self-test", help="Prove on a small model that errors are seen on this machine.")
]

FirstModel = Annotated[str, typer.Argument(metavar="A", help=f"What is right: a path, or {_HUB}.", show_default=False)]
SecondModel = Annotated[str, typer.Argument(metavar="B", help="What is compared with it.", show_default=False)]
Depth = Annotated[
    DepthName, typer.Option(help="Compare weights, what each layer computes, or what the models predict.")
]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Texts to run, instead of our own.", show_default=False)
]
PromptTokens = Annotated[
    int | None, typer.Option("--tokens", min=2, metavar="N", help="Most tokens of each prompt.", show_default=False)
]
Html = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the report as one page, too.", show_default=False)
]
FailOver = Annotated[
    str | None,
    typer.Option(metavar="kl=0.01,top1=0.98", help="Exit with 3 if a figure is over its limit.", show_default=False),
]
_PROGRAMS = "llama.cpp, mlx, transformers"
AsConsumer = Annotated[
    ConsumerName | None,
    typer.Option("--as", metavar="PROGRAM", help=f"Compute B as this one does: {_PROGRAMS}.", show_default=False),
]
AsConsumerA = Annotated[
    ConsumerName | None,
    typer.Option("--as-a", metavar="PROGRAM", help=f"Compute A as this one does: {_PROGRAMS}.", show_default=False),
]
NoNoise = Annotated[
    bool, typer.Option("--no-noise", help="Do not measure what bf16 arithmetic alone changes; a third quicker.")
]


For = Annotated[
    PurposeName, typer.Option("--for", metavar="NAME", help="A kind of machine, a program, or auto: this machine.")
]
PreparedOut = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", help="Where to write; a name of its own if not given.", show_default=False),
]
TargetDevice = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The card or chip, such as 3090, A100-80 or 'M2 Max 64'.", show_default=False),
]
Context = Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of prompt and answer there must be room for.")]
