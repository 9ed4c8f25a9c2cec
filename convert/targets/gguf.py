"""Lays a checkpoint out as GGUF for llama.cpp, in one file or split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...formats.codecs.encoding import BF16, F16, F32, GGML_MXFP4, QUANTIZED, Encoding
from ...formats.containers import gguf_types as ggml
from ...formats.containers.gguf_split import plan_gguf_split, shard_name
from ...formats.containers.gguf_values import GgufValue
from ...formats.containers.gguf_writer import GgufPlan, plan_gguf
from ...formats.errors import CheckpointError, TokenizerError, UsageError
from ...model.gguf_tokenizer import PREFIX, tokenizer_to_kv
from ...model.layouts.gguf import F32_ROLES, NAME, TABLE
from ...model.layouts.gguf_metadata import config_to_kv
from ...model.tokenizer import read_tokenizer
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout, OutputFile, canonical
from ..sources.gguf import open_gguf_files
from ..stored import StoredArray, StoredTensor
from .arrays import PlannedArray, planned_arrays, require_packed

FLOATS: dict[str, Encoding] = {"bf16": BF16, "f16": F16, "f32": F32}

_GGML_TYPES = {"F32": ggml.F32, "F16": ggml.F16, "BF16": ggml.BF16, "GGML_MXFP4": ggml.MXFP4}

_YARN_NOTE = (
    "The model's YaRN has truncate: false; GGUF has no key for it and llama.cpp computes as if it were true. "
    "Logits differ slightly from transformers' for every GGUF of this model."
)


@dataclass(frozen=True)
class GgufTarget:
    """A GGUF file at `out`, or shards named after it.

    Args:
        type: "auto" keeps matrices outside the experts as they are stored (BF16 if they are quantized); else "bf16",
            "f16" or "f32".
            Norms, biases, sinks and the router are always F32.
        experts: "mxfp4" repacks the blocks without decoding them; else the experts are decoded.
        split_max_bytes: most tensor bytes per shard, or None for one file.
    """

    out: Path
    type: str = "auto"
    experts: str = "mxfp4"
    split_max_bytes: int | None = None

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        config = checkpoint.config
        _refuse_unsayable(checkpoint)
        encodings = {name: self._encoding(stored) for name, stored in checkpoint.tensors.items()}
        planned = list(planned_arrays(TABLE, config, encodings).values())
        kv, notes = _metadata(checkpoint, encodings)
        if not config.yarn.truncate:
            notes.append(_YARN_NOTE)
        notes += _quantized_note(checkpoint)
        files, arrays = self._files(kv, planned)
        return Layout(
            name=NAME,
            files=tuple(files),
            tensors=bind(arrays, TABLE, config, self.out),
            reopen=partial(open_gguf_files, config=config),
            notes=tuple(notes),
        )

    def _encoding(self, stored: StoredTensor) -> Encoding:
        """The encoding in the file for a tensor stored as `stored`."""
        role, source = stored.tensor.role, canonical(stored.encoding)
        if role in F32_ROLES:
            return F32
        if role != "experts":
            if self.type != "auto":
                return FLOATS[self.type]
            return BF16 if stored.encoding.name in QUANTIZED else source
        if self.experts != "mxfp4":
            return FLOATS[self.experts]
        require_packed(stored)
        return GGML_MXFP4

    def _files(
        self, kv: dict[str, GgufValue], planned: list[PlannedArray]
    ) -> tuple[list[OutputFile], dict[str, StoredArray]]:
        """The shards' headers and sizes, and where each array lies in them."""
        tensors = [(array.name, _GGML_TYPES[array.encoding.name], array.shape) for array in planned]
        if self.split_max_bytes is None:
            plans: list[GgufPlan] = [plan_gguf(kv, tensors)]
        else:
            plans = plan_gguf_split(kv, tensors, self.split_max_bytes)
        files: list[OutputFile] = []
        arrays: dict[str, StoredArray] = {}
        for number, gguf in enumerate(plans, start=1):
            stem = self.out.name.removesuffix(".gguf")
            path = self.out if len(plans) == 1 else self.out.with_name(shard_name(stem, number, len(plans)))
            files.append(OutputFile(path, gguf.header, gguf.file_bytes))
            for tensor in gguf.tensors.values():
                arrays[tensor.name] = StoredArray(
                    path, tensor.name, tensor.type.name, tensor.shape, tensor.offset, tensor.n_bytes
                )
        return files, arrays


def _quantized_note(checkpoint: Checkpoint) -> list[str]:
    """A line that says what was lost before: block-quantized tensors are decoded, their loss stays."""
    names = sorted({stored.encoding.name for stored in checkpoint.tensors.values()} & QUANTIZED.keys())
    if not names:
        return []
    return [f"The source holds {', '.join(names)} tensors: they are decoded, and what quantizing them lost stays lost."]


def _refuse_unsayable(checkpoint: Checkpoint) -> None:
    """llama.cpp computes with a SwiGLU limit of 7.0 whatever the file says."""
    limit = checkpoint.config.swiglu_limit
    if limit != 7.0:
        raise CheckpointError(
            "GGUF cannot express the value, and llama.cpp would compute with another",
            file=checkpoint.path,
            key="swiglu_limit",
            expected="7.0",
            found=limit,
            remedy="Use a runtime that reads swiglu_limit from config.json.",
        )


def _metadata(checkpoint: Checkpoint, encodings: dict[str, Encoding]) -> tuple[dict[str, GgufValue], list[str]]:
    """All keys of the file, and what there is to say about the tokenizer."""
    experts = next(
        encodings[name].name for name, stored in checkpoint.tensors.items() if stored.tensor.role == "experts"
    )
    kv = config_to_kv(checkpoint.config, model_name(checkpoint.path), experts)
    if checkpoint.gguf is not None:
        kv["general.name"] = checkpoint.gguf.kv.get("general.name", kv["general.name"])
        return kv | {key: value for key, value in checkpoint.gguf.kv.items() if key.startswith(PREFIX)}, []
    if checkpoint.directory is None:
        raise TokenizerError(
            "the checkpoint has no tokenizer",
            file=checkpoint.path,
            expected="tokenizer.json in the parent directory",
            remedy="Give the directory that holds it with --tokenizer.",
        )
    tokenizer = read_tokenizer(checkpoint.directory, vocab_size=checkpoint.config.vocab_size)
    return kv | tokenizer_to_kv(tokenizer, checkpoint.config.vocab_size), list(tokenizer.warnings)


def model_name(path: Path) -> str:
    """What to call the model at `path`: the directory's or file's name, or the repository's in a Hub cache."""
    path = path.resolve()
    if path.parent.name == "snapshots":
        # models--openai--gpt-oss-20b/snapshots/<revision>
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return path.name if path.is_dir() else path.name.removesuffix(".gguf")


def parse_size(text: str) -> int:
    """`text` like 5G, 500M or 4800000000 in bytes; units are decimal, as llama.cpp counts them. Raises UsageError."""
    units = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise UsageError("the size is not a number", expected="a whole number with K, M, G or T", found=repr(text))
    return int(number) * unit
