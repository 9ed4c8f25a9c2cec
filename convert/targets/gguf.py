"""Lays a checkpoint out as GGUF for llama.cpp, in one file or split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from ...formats.codecs.encoding import BF16, F16, F32, GGML_MXFP4, MXFP4, OLLAMA_MXFP4, Encoding, canonical, is_lossy
from ...formats.containers import gguf_types as ggml
from ...formats.containers.gguf_split import plan_gguf_split, shard_name
from ...formats.containers.gguf_values import GgufValue
from ...formats.containers.gguf_writer import GgufPlan, plan_gguf
from ...formats.errors import CheckpointError, TokenizerError
from ...model.gguf_tokenizer import CHAT_TEMPLATE, tokenizer_to_kv, tokenizer_to_ollama_kv
from ...model.layouts import gguf, ollama
from ...model.layouts.gguf_metadata import DIALECTS, OLLAMA_LEGACY, Dialect, config_to_kv
from ..binding import bind
from ..checkpoint import Checkpoint
from ..plan import Layout, OutputFile
from ..sources.gguf import open_gguf_files
from ..stored import StoredArray, StoredTensor
from ..tokenizers import GgufTokenizer
from .arrays import PlannedArray, planned_arrays, require_all_rows

FLOATS: dict[str, Encoding] = {"bf16": BF16, "f16": F16, "f32": F32}

_GGML_TYPES = {
    F32.name: ggml.F32,
    F16.name: ggml.F16,
    BF16.name: ggml.BF16,
    GGML_MXFP4.name: ggml.MXFP4,
    OLLAMA_MXFP4.name: ggml.OLLAMA_MXFP4,
}

_YARN_NOTE = (
    "The model's YaRN has truncate: false; GGUF has no key for it and llama.cpp computes as if it were true. "
    "Logits differ slightly from transformers' for every GGUF of this model."
)
_NO_TEMPLATE_NOTE = (
    "The source has no chat template, so the file has none, and llama.cpp would format chats as other models do. "
    "Give the directory that has tokenizer.json and chat_template.jinja with --tokenizer."
)
_LEGACY_NOTE = "Ollama 0.11 to 0.24 loads this file; for Ollama from 0.30 on and for llama.cpp use --dialect llama.cpp."


@dataclass(frozen=True)
class GgufTarget:
    """A GGUF file at `out`, or shards named after it.

    Args:
        type: "auto" keeps matrices outside the experts as they are stored (BF16 if they are quantized); else "bf16",
            "f16" or "f32".
            Norms, biases, sinks and the router are always F32.
        experts: "mxfp4" repacks blocks without decoding them and quantizes floats; else the experts are floats.
        split_max_bytes: most tensor bytes per shard, or None for one file.
        dialect: "llama.cpp" or "ollama-legacy".
    """

    out: Path
    type: str = "auto"
    experts: str = "mxfp4"
    split_max_bytes: int | None = None
    dialect: str = "llama.cpp"

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        config = checkpoint.config
        require_all_rows(checkpoint)
        _refuse_unsayable(checkpoint)
        encodings = {name: self._encoding(stored) for name, stored in checkpoint.tensors.items()}
        planned = list(planned_arrays(self._layout.TABLE, config, encodings).values())
        kv, notes = _metadata(checkpoint, encodings, DIALECTS[self.dialect])
        if self._legacy:
            notes.append(_LEGACY_NOTE)
        elif CHAT_TEMPLATE not in kv:
            notes.append(_NO_TEMPLATE_NOTE)
        if not config.yarn.truncate:
            notes.append(_YARN_NOTE)
        files, arrays = self._files(kv, planned)
        return Layout(
            name=self._layout.NAME,
            files=tuple(files),
            tensors=bind(arrays, self._layout.TABLE, config, self.out),
            reopen=partial(open_gguf_files, config=config),
            notes=tuple(notes),
        )

    @property
    def _legacy(self) -> bool:
        return DIALECTS[self.dialect] is OLLAMA_LEGACY

    @property
    def _layout(self) -> ModuleType:
        return ollama if self._legacy else gguf

    def _encoding(self, stored: StoredTensor) -> Encoding:
        """The encoding in the file for a tensor stored as `stored`."""
        role, source = stored.tensor.role, canonical(stored.encoding)
        if role in self._layout.F32_ROLES:
            return F32
        if role != "experts":
            if self.type != "auto":
                return FLOATS[self.type]
            # llama.cpp's type MXFP4 is for experts.
            return BF16 if is_lossy(stored.encoding) or source is MXFP4 else source
        if self.experts != "mxfp4":
            return FLOATS[self.experts]
        return OLLAMA_MXFP4 if self._legacy else GGML_MXFP4

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
        for number, shard in enumerate(plans, start=1):
            stem = self.out.name.removesuffix(".gguf")
            path = self.out if len(plans) == 1 else self.out.with_name(shard_name(stem, number, len(plans)))
            files.append(OutputFile(path, shard.header, shard.file_bytes))
            for tensor in shard.tensors.values():
                arrays[tensor.name] = StoredArray(
                    path, tensor.name, tensor.type.name, tensor.shape, tensor.offset, tensor.n_bytes
                )
        return files, arrays


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


def _metadata(
    checkpoint: Checkpoint, encodings: dict[str, Encoding], dialect: Dialect
) -> tuple[dict[str, GgufValue], list[str]]:
    """All keys of the file, and what there is to say about the tokenizer."""
    experts = next(
        encodings[name].name for name, stored in checkpoint.tensors.items() if stored.tensor.role == "experts"
    )
    name = checkpoint.model_name or model_name(checkpoint.path)
    kv = config_to_kv(checkpoint.config, name, experts, dialect=dialect)
    source, vocab_size = checkpoint.tokenizer, checkpoint.config.vocab_size
    if isinstance(source, GgufTokenizer) and source.is_of(dialect.architecture):
        return kv | source.kv(), []
    if source is None:
        raise TokenizerError(
            "the checkpoint has no tokenizer",
            file=checkpoint.path,
            expected="tokenizer.json in the parent directory",
            remedy="Give the directory that holds it with --tokenizer.",
        )
    tokenizer = source.tokenizer(vocab_size)
    to_kv = tokenizer_to_ollama_kv if dialect is OLLAMA_LEGACY else tokenizer_to_kv
    return kv | to_kv(tokenizer, vocab_size), list(tokenizer.warnings)


def model_name(path: Path) -> str:
    """What to call the model at `path`: the directory's or file's name, or the repository's in a Hub cache."""
    path = path.resolve()
    if path.parent.name == "snapshots":
        # models--openai--gpt-oss-20b/snapshots/<revision>
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    if path.name.startswith("sha256-"):
        # Ollama's name for what it downloaded.
        return "gpt-oss"
    return path.stem if path.suffix in (".gguf", ".bin") and path.is_file() else path.name
