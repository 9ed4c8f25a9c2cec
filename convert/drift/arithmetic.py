"""What programs compute of a gpt-oss config: `--as llama.cpp` shows what that one will give.

One difference is known that does not depend on hardware: llama.cpp and MLX round YaRN's correction range to whole
dimensions whatever `truncate` says, and the official models say that it is not to be rounded. All else they do
otherwise is rounding: it differs between their back ends, and is not computed here.

Source: llama.cpp `ggml/src/ggml.c` (ggml_rope_yarn_corr_dims); mlx-lm `models/rope_utils.py` (YarnRoPE); transformers
`modeling_rope_utils.py`, which alone knows `truncate`.
"""

from __future__ import annotations

from dataclasses import replace

from ...formats.errors import UsageError
from ...model.config import GptOssConfig
from ..checkpoint import Checkpoint

# program -> whether it truncates YaRN's correction range though the config says not to
CONSUMERS: dict[str, bool] = {"llama.cpp": True, "mlx": True, "transformers": False}

# layout -> the program that runs it
_RUNS = {"gguf": "llama.cpp", "ollama-legacy": "Ollama", "mlx": "MLX"}


def as_computed_by(config: GptOssConfig, consumer: str | None) -> GptOssConfig:
    """The config as `consumer` computes it; as it is if None.

    Raises:
        UsageError: no such program is known here.
    """
    if consumer is None:
        return config
    if consumer not in CONSUMERS:
        raise UsageError(
            "the arithmetic of this program is not known",
            expected=f"--as {', '.join(CONSUMERS)}",
            found=repr(consumer),
            remedy="Ollama and LM Studio compute as llama.cpp does; vLLM and SGLang as transformers.",
        )
    return replace(config, yarn=replace(config.yarn, truncate=config.yarn.truncate or CONSUMERS[consumer]))


def notes_on_arithmetic(a: Checkpoint, b: Checkpoint, consumer: str | None, consumer_a: str | None) -> list[str]:
    """What the programs that will run the files do otherwise than was computed, as sentences."""
    notes = []
    for name, checkpoint, chosen in (("A", a, consumer_a), ("B", b, consumer)):
        truncated = not checkpoint.config.yarn.truncate
        if chosen is not None:
            changes = CONSUMERS[chosen] and truncated
            what = "YaRN truncated, although the config says truncate: false" if changes else "as its config says"
            notes.append(f"{name} is computed as {chosen} computes it: {what}.")
        program = _RUNS.get(checkpoint.layout)
        if program and truncated and chosen is None:
            option, value = ("--as" if name == "B" else "--as-a"), "mlx" if program == "MLX" else "llama.cpp"
            notes.append(
                f"{name} will not run as it is computed here: its config says truncate: false, and {program} computes "
                f"YaRN as if it were true. {option} {value} shows what that gives."
            )
    return notes
