"""What is written for a consumer, where, and when nothing needs to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...formats.errors import UsageError
from ...model.layouts import gguf, hf, mlx, ollama
from ..checkpoint import Checkpoint
from ..plan import Layout, Plan, Quantizing, Target, plan
from ..targets.gguf import GgufTarget, model_name
from ..targets.hf import HfTarget
from ..targets.mlx import MlxTarget
from .consumers import GGUF, HF_DIRECTORY, READS
from .memory import LM_STUDIO, MLX, OLLAMA
from .model import has_packed_experts
from .modelfile import FILE_NAME, modelfile

PUBLISHER = "gptoss-convert"
LM_STUDIO_MODELS = Path(".lmstudio") / "models"


@dataclass(frozen=True)
class Output:
    """What the consumer is given: `path` is the file or directory it opens.

    Args:
        path: a GGUF file or a directory.
        plan: how it is made; None if the source is it already.
        texts: small files that are written without a plan.
        name: what the model is called.
    """

    path: Path
    plan: Plan | None
    name: str
    texts: tuple[tuple[Path, bytes], ...] = ()

    @property
    def sizes(self) -> list[tuple[Path, int]]:
        """Every file that will be written, and its bytes."""
        return (self.plan.sizes if self.plan else []) + [(path, len(text)) for path, text in self.texts]

    @property
    def n_bytes(self) -> int:
        """Bytes that will be written."""
        return sum(n_bytes for _, n_bytes in self.sizes)

    @property
    def directories(self) -> list[Path]:
        """The directories that must be there before it is written, outermost first."""
        if self.plan is None:
            return [path.parent for path, _ in self.texts]
        directory = self.plan.layout.atomic_directory
        inner = self.plan.paths[0].parent if directory is None else directory.parent
        return [inner]


@dataclass(frozen=True)
class OllamaTarget:
    """A new directory `out` with a GGUF file and the Modelfile that names it."""

    out: Path
    file_name: str
    context: int

    def lay_out(self, checkpoint: Checkpoint) -> Layout:
        layout = GgufTarget(self.out / self.file_name).lay_out(checkpoint)
        text = modelfile(f"./{self.file_name}", self.context)
        return replace(layout, texts=((self.out / FILE_NAME, text),), atomic_directory=self.out)


def plan_output(
    checkpoint: Checkpoint, consumer: str, out: Path | None, context: int, quantizing: Quantizing | None = None
) -> Output:
    """What `consumer` needs of the checkpoint, at `out` or under a name of its own in the current directory.

    Raises:
        GptOssConvertError: the checkpoint cannot be stored so, or `out` cannot be what is asked for.
    """
    name = short_name(checkpoint)
    if out is None and is_ready(checkpoint, consumer):
        return _as_it_is(checkpoint, consumer, name, context)
    if consumer == OLLAMA:
        directory = out or Path(f"{name}-ollama")
        file_name = f"{name}-mxfp4.gguf"
        planned = plan(checkpoint, OllamaTarget(directory, file_name, context), quantizing)
        return Output(directory / file_name, planned, name)
    path = _path(consumer, name, out)
    return Output(path, plan(checkpoint, _target(consumer, path), quantizing), name)


def is_ready(checkpoint: Checkpoint, consumer: str) -> bool:
    """True if the consumer reads the checkpoint as it is, with its experts packed."""
    layout = {GGUF: gguf.NAME, HF_DIRECTORY: hf.NAME}.get(READS[consumer], mlx.NAME)
    return checkpoint.layout == layout and has_packed_experts(checkpoint.tensors)


def short_name(checkpoint: Checkpoint) -> str:
    """What to call the model in file names: the last part of its repository's name, in letters that files may have."""
    is_gguf = checkpoint.layout in (gguf.NAME, ollama.NAME)
    name = (None if is_gguf else checkpoint.model_name) or model_name(checkpoint.path)
    name = name.rpartition("/")[2]
    for ending in (".gguf", "-mxfp4", "-bf16", "-mlx"):
        name = name.removesuffix(ending)
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.")
    return kept or "gpt-oss"


def _target(consumer: str, path: Path) -> Target:
    if READS[consumer] == GGUF:
        return GgufTarget(path)
    return MlxTarget(path) if consumer == MLX else HfTarget(path)


def _path(consumer: str, name: str, out: Path | None) -> Path:
    if consumer == LM_STUDIO:
        return _lm_studio_path(name, out)
    if READS[consumer] == GGUF:
        path = out or Path(f"{name}-mxfp4.gguf")
        if path.is_dir():
            return path / f"{name}-mxfp4.gguf"
        if path.suffix != ".gguf":
            raise UsageError(
                "the output is a GGUF file",
                expected="a name that ends in .gguf",
                found=repr(str(path)),
                remedy=f"Name it {path.name}.gguf, or give a directory that exists.",
            )
        return path
    return out or Path(f"{name}-{'mlx' if consumer == MLX else 'mxfp4'}")


def _lm_studio_path(name: str, out: Path | None) -> Path:
    """models/publisher/model/file.gguf, the only place where LM Studio looks; its own models, or `out`, or here."""
    home = Path.home() / LM_STUDIO_MODELS
    models = out or (home if home.is_dir() else Path("lm-studio-models"))
    if models.suffix == ".gguf":
        raise UsageError(
            "LM Studio looks for models in directories",
            expected="a directory of models",
            found=repr(str(models)),
            remedy="Give that directory, or leave OUT away.",
        )
    return models / PUBLISHER / name / f"{name}-mxfp4.gguf"


def _as_it_is(checkpoint: Checkpoint, consumer: str, name: str, context: int) -> Output:
    """Nothing to convert; Ollama still needs a Modelfile, which names the file where it is."""
    if consumer != OLLAMA:
        return Output(checkpoint.path, None, name)
    text = modelfile(str(checkpoint.path.resolve()), context)
    return Output(checkpoint.path, None, name, ((Path(f"{name}-ollama") / FILE_NAME, text),))
