"""gptoss-convert: gpt-oss weights between layouts, byte for byte, with a proof after every conversion.

    import gptoss_convert as gc

    checkpoint = gc.open_checkpoint("gpt-oss-20b")
    plan = gc.plan(checkpoint, gc.GgufTarget(Path("gpt-oss-20b.gguf")))
    manifest = gc.run(plan)
    assert manifest.verdict.holds

Importing the package imports nothing else; a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert.checkpoint import Checkpoint, open_checkpoint
    from .convert.manifest import Manifest, Verdict
    from .convert.plan import Plan, plan
    from .convert.run import run
    from .convert.targets.gguf import GgufTarget
    from .convert.targets.hf import HfTarget
    from .convert.targets.original import OriginalTarget
    from .convert.verify import verify
    from .formats.errors import GptOssConvertError

__version__ = "0.1.0"

# public name -> the module it lives in
_HOMES = {
    "Checkpoint": "convert.checkpoint",
    "GgufTarget": "convert.targets.gguf",
    "GptOssConvertError": "formats.errors",
    "HfTarget": "convert.targets.hf",
    "Manifest": "convert.manifest",
    "OriginalTarget": "convert.targets.original",
    "Plan": "convert.plan",
    "Verdict": "convert.manifest",
    "open_checkpoint": "convert.checkpoint",
    "plan": "convert.plan",
    "run": "convert.run",
    "verify": "convert.verify",
}

__all__ = [
    "Checkpoint",
    "GgufTarget",
    "GptOssConvertError",
    "HfTarget",
    "Manifest",
    "OriginalTarget",
    "Plan",
    "Verdict",
    "open_checkpoint",
    "plan",
    "run",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
