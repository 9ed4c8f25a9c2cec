"""What turning floats into MXFP4 did, and how the result differs from a base: as data, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..formats.codecs.mxfp4_encode import EncodeStats
from ..formats.codecs.mxfp4_scales import ScaleRule
from .manifest import Manifest

# Most names in one line; `--json` has all of them.
_SHOWN = 6


def describe_changes(manifest: Manifest) -> dict[str, Any]:
    """ "quantized", "packed" and "like" of `--json`; only what there is."""
    report: dict[str, Any] = {}
    if manifest.quantized:
        total = sum(manifest.quantized.values(), EncodeStats())
        report["quantized"] = {
            "scale_rule": manifest.plan.quantizing.rule.value,
            "tensors": len(manifest.quantized),
            **_stats(total),
            "by_tensor": {name: _stats(stats) for name, stats in manifest.quantized.items()},
        }
        report["packed"] = {"digests": manifest.packed_digests} | _recorded(manifest)
    like = manifest.plan.quantizing.like
    if like is not None:
        quantized = sum(manifest.quantized.values(), EncodeStats())
        report["like"] = {
            "path": str(like.path),
            "blocks_changed": quantized.blocks - quantized.blocks_unchanged,
            "share_changed": 1 - quantized.blocks_unchanged / quantized.blocks if quantized.blocks else 0.0,
            "identical": [name for name, differs in manifest.differs.items() if not differs],
            "different": [name for name, differs in manifest.differs.items() if differs],
        }
    return report


def _stats(stats: EncodeStats) -> dict[str, Any]:
    return {
        "blocks": stats.blocks,
        "blocks_exact": stats.blocks_exact,
        "blocks_requantized": stats.blocks_requantized,
        "blocks_ambiguous": stats.blocks_ambiguous,
        "relative_mse": stats.relative_mse,
    }


def _recorded(manifest: Manifest) -> dict[str, list[str]]:
    """Which tensors have the digests that the source recorded of the MXFP4 it was decoded from."""
    known = manifest.plan.source.packed_digests
    packed = {name: digest for name, digest in manifest.packed_digests.items() if name in known}
    return {
        "as_recorded": [name for name, digest in packed.items() if digest == known[name]],
        "not_as_recorded": [name for name, digest in packed.items() if digest != known[name]],
    }


def change_lines(report: Mapping[str, Any], roles: Mapping[str, str]) -> list[str]:
    """What `describe_changes` says, for people. `roles` are by canonical name."""
    lines = []
    if "quantized" in report:
        lines += _quantized_lines(report["quantized"])
        lines += _recorded_lines(report["packed"])
    if "like" in report:
        lines += _like_lines(report["like"], roles)
    return lines


def _quantized_lines(found: Mapping[str, Any]) -> list[str]:
    blocks, exact, changed = found["blocks"], found["blocks_exact"], found["blocks_requantized"]
    line = f"quantized {found['tensors']} tensors by the rule {found['scale_rule']}: {blocks:,} blocks, {exact:,} exact"
    if changed:
        rule = ScaleRule.EVEN.value if found["scale_rule"] == ScaleRule.EXACT.value else found["scale_rule"]
        line += f", {changed:,} requantized ({_percent(changed / blocks)}) by {rule} "
        line += f"with a relative MSE of {found['relative_mse']:.3g}"
    else:
        line += ", none requantized"
    return [line]


def _recorded_lines(packed: Mapping[str, Any]) -> list[str]:
    same, other = packed["as_recorded"], packed["not_as_recorded"]
    if not same and not other:
        return []
    count = f"{len(same)} of {len(same) + len(other)} of them"
    lines = [f"{count} are, byte for byte, the MXFP4 that the source was decoded from"]
    if same and other:
        lines.append(f"not so: {_names(other)}; --like ORIGINAL keeps the bytes of blocks that could have two scales")
    return lines


def _like_lines(like: Mapping[str, Any], roles: Mapping[str, str]) -> list[str]:
    same, other = like["identical"], like["different"]
    lines = [
        f"beside {like['path']}: {like['blocks_changed']:,} quantized blocks changed "
        f"({_percent(like['share_changed'])}); {len(same)} tensors identical, {len(other)} different"
    ]
    if not same or not other:
        return lines
    experts = {name for name, role in roles.items() if role == "experts"}
    if experts <= set(same):
        return [
            *lines,
            "all experts are identical to it although other tensors changed: were trained experts left out?",
        ]
    if len(same) <= len(other):
        return [*lines, f"identical to it although others changed: {_names(same)}"]
    return [*lines, f"different although others are identical: {_names(other)}"]


def _names(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more (--json names all)" if more > 0 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
