"""gptoss-convert: gpt-oss weights between layouts, byte for byte, with a proof after every conversion.

    import gptoss_convert as gc

    checkpoint = gc.open_checkpoint("gpt-oss-20b")
    plan = gc.plan(checkpoint, gc.GgufTarget(Path("gpt-oss-20b.gguf")))
    manifest = gc.run(plan)
    assert manifest.verdict.holds
    print(gc.drift(checkpoint, gc.open_checkpoint("gpt-oss-20b.gguf")).sentence)

Importing the package imports nothing else; a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert.checkpoint import Checkpoint, open_checkpoint
    from .convert.drift.compare import drift
    from .convert.manifest import Manifest, Verdict
    from .convert.plan import Plan, Quantizing, plan
    from .convert.run import run
    from .convert.targets.bf16 import Bf16Target
    from .convert.targets.gguf import GgufTarget
    from .convert.targets.hf import HfTarget
    from .convert.targets.metal import MetalTarget
    from .convert.targets.mlx import MlxTarget
    from .convert.targets.original import OriginalTarget
    from .convert.validation.validate import validate
    from .convert.verify import verify
    from .formats.codecs.mxfp4_scales import ScaleRule
    from .formats.errors import GptOssConvertError

__version__ = "0.1.0"

# public name -> the module it lives in
_HOMES = {
    "Bf16Target": "convert.targets.bf16",
    "Checkpoint": "convert.checkpoint",
    "GgufTarget": "convert.targets.gguf",
    "GptOssConvertError": "formats.errors",
    "HfTarget": "convert.targets.hf",
    "Manifest": "convert.manifest",
    "MetalTarget": "convert.targets.metal",
    "MlxTarget": "convert.targets.mlx",
    "OriginalTarget": "convert.targets.original",
    "Plan": "convert.plan",
    "Quantizing": "convert.plan",
    "ScaleRule": "formats.codecs.mxfp4_scales",
    "Verdict": "convert.manifest",
    "drift": "convert.drift.compare",
    "open_checkpoint": "convert.checkpoint",
    "plan": "convert.plan",
    "run": "convert.run",
    "validate": "convert.validation.validate",
    "verify": "convert.verify",
}

__all__ = [
    "Bf16Target",
    "Checkpoint",
    "GgufTarget",
    "GptOssConvertError",
    "HfTarget",
    "Manifest",
    "MetalTarget",
    "MlxTarget",
    "OriginalTarget",
    "Plan",
    "Quantizing",
    "ScaleRule",
    "Verdict",
    "drift",
    "open_checkpoint",
    "plan",
    "run",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
