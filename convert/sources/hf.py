"""Opens directories in Hugging Face's layouts: official MXFP4, floats in any spelling, a mixture, and mlx-lm's."""

from __future__ import annotations

from pathlib import Path

from ...formats.codecs.encoding import MXFP4
from ...formats.errors import CheckpointError
from ...model.config import CONFIG_FILE, read_config
from ...model.foreign import refuse_adapter, refuse_foreign
from ...model.layouts import hf, mlx
from ..binding import bind
from ..checkpoint import Checkpoint
from ..mistaken import refuse_pickles
from ..packed_digests import read_packed_digests
from ..stored import StoredTensor
from ..tokenizers import DirectoryTokenizer
from .arrays import read_arrays

_REPAIRED = (
    "The experts are floats under the names of packed blocks (gate_up_proj_blocks), as save_pretrained of "
    "transformers 5 leaves a dequantized model; transformers itself would load random experts. They are read as "
    "what they are."
)
_AMBIGUOUS = (
    "experts.0.gate_proj is read as the gate, as its name says. llm-compressor 0.12 and 0.13 gave this name to the "
    "first half of rows in which gate and up alternate, and nothing in the file tells: if it came from there, save it "
    "anew with another version, or compare with --like ORIGINAL."
)


def recognises_hf(directory: Path) -> bool:
    """True if `directory` holds safetensors or a config: enough for `open_hf` to say what else is wrong."""
    return (directory / CONFIG_FILE).exists() or any(directory.glob("*.safetensors*"))


def open_hf(directory: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The checkpoint in `directory`; its tokenizer lies in `tokenizer`, if given.

    Raises:
        CheckpointError, SafetensorsError: it is damaged or incomplete, or its weights are not plain.
    """
    refuse_adapter(directory)
    config_file = directory / CONFIG_FILE
    if not config_file.is_file():
        raise CheckpointError(
            f"the directory has no {CONFIG_FILE}",
            file=directory,
            expected=CONFIG_FILE,
            remedy="Download it from the repository the weights came from.",
        )
    config = read_config(config_file)
    refuse_pickles(directory)
    found = read_arrays(directory)
    refuse_foreign(config.raw, {array.name: array.dtype for array in found.arrays.values()}, directory)
    is_mlx = mlx.recognises_names(found.arrays)
    table, variants = (mlx.TABLE, {}) if is_mlx else (hf.TABLE, hf.VARIANTS)
    tensors = bind(found.arrays, table, config, directory, variants)
    return Checkpoint(
        path=directory,
        layout=mlx.NAME if is_mlx else _layout_name(tensors),
        config=config,
        tensors=tensors,
        arrays=tuple(found.arrays.values()),
        files=found.files,
        tokenizer=DirectoryTokenizer(tokenizer or directory),
        notes=tuple(_notes(tensors)),
        packed_digests=read_packed_digests(directory),
    )


def _layout_name(tensors: dict[str, StoredTensor]) -> str:
    """ "hf" if the experts are packed, "hf-bf16" and the like if they are floats, "hf-mixed" if some are."""
    encodings = {stored.encoding for stored in tensors.values() if stored.tensor.role == "experts"}
    if encodings == {MXFP4}:
        return hf.NAME
    return f"{hf.NAME}-mixed" if len(encodings) > 1 else f"{hf.NAME}-{encodings.pop().name.lower()}"


def _notes(tensors: dict[str, StoredTensor]) -> list[str]:
    experts = [stored for stored in tensors.values() if stored.tensor.role == "experts"]
    names = {name for stored in experts for name in _names(stored)}
    notes = []
    if any(name.endswith("_blocks") for stored in experts if stored.encoding is not MXFP4 for name in _names(stored)):
        notes.append(_REPAIRED)
    if any(name.endswith(".mlp.experts.0.gate_proj.weight") for name in names):
        notes.append(_AMBIGUOUS)
    return notes


def _names(stored: StoredTensor) -> list[str]:
    return [span.array.name for span in stored.spans]
