"""What a checkpoint or a plan is, as data: the source of every table and of `--json`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ..formats.codecs.encoding import is_lossy
from ..formats.containers.safetensors_index import INDEX_SUFFIX
from ..model.inventory import CanonicalTensor
from .changes import describe_changes
from .checkpoint import Checkpoint
from .manifest import Manifest
from .plan import Plan
from .stored import StoredTensor

# The keys of the config that a person looks for first.
_CONFIG_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_local_experts",
    "num_experts_per_tok",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "swiglu_limit",
    "rms_norm_eps",
    "rope_theta",
)


def describe(checkpoint: Checkpoint, *, tensors: bool = False) -> dict[str, Any]:
    """Everything `inspect` shows, as JSON data. `tensors` adds one entry per stored array."""
    config = checkpoint.config
    facts = None if checkpoint.tokenizer is None else checkpoint.tokenizer.facts()
    report: dict[str, Any] = {
        "path": str(checkpoint.path),
        "layout": checkpoint.layout,
        "parameters": checkpoint.n_parameters,
        "active_parameters": active_parameters(checkpoint),
        "tensor_bytes": checkpoint.account(),
        "bits_per_weight": 8 * checkpoint.n_bytes / checkpoint.n_parameters,
        "tensor_count": len(checkpoint.arrays),
        "files": [{"name": file.name, "bytes": file.stat().st_size} for file in checkpoint.files],
        "config": {key: getattr(config, key) for key in _CONFIG_KEYS} | {"yarn": asdict(config.yarn)},
        "roles": role_table(checkpoint.tensors.values()),
        "tokenizer": None if facts is None else asdict(facts),
        "notes": list(checkpoint.notes),
    }
    if tensors:
        report["tensors"] = [
            {
                "name": array.name,
                "dtype": array.dtype,
                "shape": list(array.shape),
                "file": array.file.name,
                "offset": array.offset,
                "bytes": array.n_bytes,
            }
            for array in checkpoint.arrays
        ]
    return report


def active_parameters(checkpoint: Checkpoint) -> int:
    """Parameters that one token's forward pass multiplies with: its experts only, without the embedding's lookup."""
    config = checkpoint.config

    def used(tensor: CanonicalTensor) -> int:
        if tensor.role == "embedding":
            return 0
        if tensor.role in ("experts", "expert bias"):
            return tensor.n_elements * config.num_experts_per_tok // config.num_local_experts
        return tensor.n_elements

    return sum(used(stored.tensor) for stored in checkpoint.tensors.values())


def role_table(tensors: Iterable[StoredTensor]) -> list[dict[str, Any]]:
    """Tensors, parameters, bytes and bits per weight by role and encoding, largest first."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for stored in tensors:
        key = (stored.tensor.role, stored.encoding.name)
        row = rows.setdefault(key, {"role": key[0], "encoding": key[1], "tensors": 0, "parameters": 0, "bytes": 0})
        row["tensors"] += 1
        row["parameters"] += stored.tensor.n_elements
        row["bytes"] += stored.n_bytes
    for row in rows.values():
        row["bits_per_weight"] = 8 * row["bytes"] / row["parameters"]
    return sorted(rows.values(), key=lambda row: -row["bytes"])


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What a run will write, as JSON data: `--dry-run`."""
    data_bytes = sum(stored.n_bytes for stored in plan.layout.tensors.values())
    return {
        "source": {"path": str(plan.source.path), "layout": plan.source.layout, "tensor_bytes": plan.source_bytes},
        "layout": plan.layout.name,
        "bytes": plan.n_bytes,
        "tensor_bytes": data_bytes,
        "parameters": plan.n_parameters,
        "bits_per_weight": 8 * data_bytes / plan.n_parameters,
        "files": _files(plan),
        "index": _index(plan),
        "roles": role_table(plan.layout.tensors.values()),
        "notes": plan_notes(plan),
    }


def plan_notes(plan: Plan) -> list[str]:
    """What there is to say of the source, and of what becomes of it."""
    return [*plan.source.notes, *_lossy_notes(plan), *plan.layout.notes]


def _files(plan: Plan) -> list[dict[str, Any]]:
    """Every file with its size, and with its digest where the content is known already."""
    known = {path: hashlib.sha256(text).hexdigest() for path, text in plan.layout.texts}
    return [
        {"path": str(path), "bytes": n_bytes} | ({"sha256": known[path]} if path in known else {})
        for path, n_bytes in plan.sizes
    ]


def _index(plan: Plan) -> dict[str, Any] | None:
    """The index that says which tensor goes to which shard, if there is one."""
    found = (text for path, text in plan.layout.texts if path.name.endswith(INDEX_SUFFIX))
    return next((json.loads(text) for text in found), None)


def _lossy_notes(plan: Plan) -> list[str]:
    """A line that says what was lost before: block-quantized tensors are decoded, their loss stays."""
    names = sorted({stored.encoding.name for stored in plan.source.tensors.values() if is_lossy(stored.encoding)})
    if not names:
        return []
    return [f"The source holds {', '.join(names)} tensors: they are decoded, and what quantizing them lost stays lost."]


def describe_run(manifest: Manifest, seconds: float) -> dict[str, Any]:
    """What a run did, as JSON data; `digests` are canonical, by canonical name."""
    verdict = manifest.verdict
    return describe_plan(manifest.plan) | {
        "seconds": round(seconds, 3),
        "verified": None if verdict is None else verdict.holds,
        "checks": [] if verdict is None else [asdict(check) for check in verdict.checks],
        "rounded": manifest.rounded,
        "digests": manifest.digests,
        **describe_changes(manifest),
    }


def number(value: float | None) -> float | None:
    """The number; None if it is not finite, which JSON cannot say."""
    return value if value is not None and math.isfinite(value) else None
