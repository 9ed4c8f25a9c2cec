"""What a preparation says: as data for `--json`, and as lines for a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..manifest import Manifest
from ..render import size
from ..report import describe_plan, describe_run, plan_notes
from .choose import reason
from .command import Alternative, Preparation
from .commands import Command
from .consumers import EMULATED, NATIVE, READS, TITLES
from .fit import Verdict
from .machines import CPU, GIB, MIB, Machine, named
from .memory import VLLM
from .model import decoded
from .speed import PROBE_BYTES


def describe_preparation(preparation: Preparation) -> dict[str, Any]:
    """Everything `prepare` shows, as JSON data; docs/prepare.md names the keys."""
    choice, output = preparation.choice, preparation.output
    plan = None if output.plan is None else describe_plan(output.plan)
    return {
        "source": {"path": str(preparation.checkpoint.path), "layout": preparation.checkpoint.layout},
        "for": choice.purpose,
        "consumer": choice.consumer,
        "reads": READS[choice.consumer],
        "reason": _reason(preparation),
        "experts": None if choice.way is None else choice.way.experts,
        "caution": None if choice.way is None else choice.way.caution or None,
        "machine": _machine(preparation),
        "fit": _fit(preparation.verdict)
        | {"context": preparation.setting.context, "applied": preparation.applied and preparation.applied.kind},
        "alternatives": [_alternative(other) for other in preparation.alternatives],
        "output": {"path": str(output.path), "name": output.name, "converted": output.plan is not None},
        "files": [{"path": str(path), "bytes": n_bytes} for path, n_bytes in output.sizes],
        "bytes": output.n_bytes,
        "estimate": _estimate(preparation),
        "disk": {"free": preparation.free, "enough": _has_room(preparation)},
        "plan": plan,
        "notes": [] if plan is None else plan["notes"],
        "commands": [asdict(command) | {"line": command.line} for command in preparation.commands],
        "run": None,
    }


def describe_prepared(preparation: Preparation, manifest: Manifest | None, seconds: float) -> dict[str, Any]:
    """The same with what was written; `run` is what other commands print, or None if nothing was converted."""
    done = None if manifest is None else describe_run(manifest, seconds)
    return describe_preparation(preparation) | {"run": done}


def _reason(preparation: Preparation) -> str:
    checkpoint, plan = preparation.checkpoint, preparation.output.plan
    n_bytes = checkpoint.n_bytes if plan is None else sum(stored.n_bytes for stored in plan.layout.tensors.values())
    return reason(preparation.choice, n_bytes, decoded(checkpoint.config).total)


def _machine(preparation: Preparation) -> dict[str, Any] | None:
    machine = preparation.choice.machine
    return None if machine is None else asdict(machine) | {"origin": preparation.choice.origin}


def _fit(verdict: Verdict) -> dict[str, Any]:
    needs = verdict.needs
    return {
        "fits": verdict.fits,
        "needs": asdict(needs) | {"total": needs.total},
        "available": verdict.available,
        "spare": verdict.spare,
        "remedies": [
            {"kind": remedy.kind, "text": remedy.text, "bytes": remedy.n_bytes} for remedy in verdict.remedies
        ],
    }


def _alternative(other: Alternative) -> dict[str, Any]:
    return {
        "consumer": other.consumer,
        "reads": READS[other.consumer],
        "runs": other.way is not None,
        "experts": other.way and other.way.experts,
        "how": other.way and other.way.how,
        "caution": (other.way and other.way.caution) or None,
        "weights": other.weights,
        "needs": other.verdict and other.verdict.needs.total,
        "fits": other.verdict and other.verdict.fits,
    }


def _estimate(preparation: Preparation) -> dict[str, Any] | None:
    if preparation.rate is None:
        return None
    seconds = preparation.output.n_bytes / preparation.rate
    return {"seconds": round(seconds, 1), "write_bytes_per_second": round(preparation.rate)}


def _has_room(preparation: Preparation) -> bool:
    return preparation.writes_zeros or preparation.output.n_bytes <= preparation.free


# --- for a terminal ----------------------------------------------------------------------------------------------


def preparation_lines(preparation: Preparation) -> list[str]:
    """The verdict, the reason, what else there is, what is written, and how it is started."""
    choice = preparation.choice
    lines = [
        f"{preparation.checkpoint.path} ({preparation.checkpoint.layout}) for {_where(preparation)}, "
        f"{preparation.setting.context:,} tokens of context",
        *_verdict_lines(preparation),
        f"  why       {_reason(preparation)}",
    ]
    if choice.way is not None and choice.way.caution:
        lines.append(f"  caution   {choice.way.caution}")
    return lines + _alternative_lines(preparation.alternatives) + _file_lines(preparation)


def start_lines(commands: tuple[Command, ...]) -> list[str]:
    """How the consumer is started, ready to be copied."""
    return ["start it with:", *(f"  {command.line}" for command in commands)]


def _where(preparation: Preparation) -> str:
    choice = preparation.choice
    if choice.machine is None:
        return f"{TITLES[choice.consumer]}, on a machine that --device may name"
    cards = f"{preparation.setting.cards} × " if preparation.setting.cards > 1 else ""
    where = f"{TITLES[choice.consumer]} on {cards}{named(choice.machine)}"
    return where + {"here": ", this machine", "example": f", an example of {choice.purpose}"}.get(choice.origin, "")


def _verdict_lines(preparation: Preparation) -> list[str]:
    verdict, machine, context = preparation.verdict, preparation.choice.machine, preparation.setting.context
    needs = verdict.needs
    lines = [
        f"  verdict   {_verdict_text(preparation)}",
        f"            {_memory(needs.weights):>11}  weights",
        f"            {_memory(needs.kv_cache):>11}  keys and values of {context:,} tokens",
        f"            {_memory(needs.activations):>11}  activations (estimate)",
        f"            {_memory(needs.runtime):>11}  runtime (allowance)",
    ]
    if needs.host_weights and (machine is None or machine.is_card):
        lines.append(
            f"            {_memory(needs.host_weights):>11}  the embedding, in the memory of the machine around it"
        )
    if verdict.fits is False and not verdict.remedies:
        lines.append("  remedy    none that we know of: the commands below would fail")
    for remedy in verdict.remedies:
        chosen = " (the command below does this)" if remedy == preparation.applied else ""
        lines.append(f"  remedy    {remedy.text}{chosen}")
    return lines


def _verdict_text(preparation: Preparation) -> str:
    verdict = preparation.verdict
    total = _memory(verdict.needs.total)
    if verdict.spare is None or verdict.available is None:
        return f"not known: it needs {total}; --device NAME says whether it fits there"
    has = f"{_memory(verdict.available)} {_available_text(preparation.choice.machine, preparation.choice.consumer)}"
    if verdict.fits:
        return f"fits: it needs {total} of {has}, and leaves {_memory(verdict.spare)}"
    if verdict.spare < 0:
        return f"does not fit: it needs {total} of {has}; {_memory(-verdict.spare)} are missing"
    return f"does not fit: {total} of {has} would do, but not {_memory(verdict.needs.host_weights)} beside it"


def _available_text(machine: Machine | None, consumer: str) -> str:
    """Where the memory comes from."""
    if machine is None or machine.is_card:
        return "that vLLM is given of each card" if consumer == VLLM else "that the driver reports"
    if machine.family == CPU:
        return "that the system can spare"
    return "that macOS lets the GPU have" + ("" if machine.wired_bytes is None else ", as it is set here")


def _alternative_lines(others: tuple[Alternative, ...]) -> list[str]:
    """What else runs the model there; programs that are alike share a line."""
    alike: dict[str, list[str]] = {}
    for other in others:
        alike.setdefault(_alternative_text(other), []).append(TITLES[other.consumer])
    silent = alike.pop("", [])
    lines = [f"  or        {', '.join(titles)}: {text}" for text, titles in alike.items()]
    return lines + ([f"  not       {', '.join(silent)}: no kernels for it there"] if silent else [])


def _alternative_text(other: Alternative) -> str:
    if other.way is None or other.verdict is None or other.weights is None:
        return ""
    experts = {NATIVE: "MXFP4 native", EMULATED: "MXFP4 emulated"}.get(other.way.experts, "decoded to BF16")
    fits = {True: "fits", False: "does not fit", None: "fits or not"}[other.verdict.fits]
    caution = f" ({other.way.caution})" if other.way.caution else ""
    needed = _memory(other.verdict.needs.total)
    return f"{READS[other.consumer]}, {experts}, {size(other.weights)} of weights, {needed} in all, {fits}{caution}"


def _file_lines(preparation: Preparation) -> list[str]:
    output, choice = preparation.output, preparation.choice
    if output.plan is None:
        lines = [f"  convert   nothing: {TITLES[choice.consumer]} reads {output.path} as it is"]
    else:
        layout = output.plan.layout.name
        lines = [f"  convert   {preparation.checkpoint.layout} → {layout}, {output.n_bytes:,} bytes"]
    lines += [f"  file      {path}  {n_bytes:,} bytes" for path, n_bytes in output.sizes]
    if preparation.rate is not None:
        lines.append(
            f"  time      about {output.n_bytes / preparation.rate:.0f} s to write, an estimate: this disk took "
            f"{size(PROBE_BYTES)} at {size(preparation.rate)}/s just now; the proof then reads it all back"
        )
    if not _has_room(preparation):
        lines.append(f"  disk      too full: {preparation.free:,} bytes are free")
    notes = [] if output.plan is None else plan_notes(output.plan)
    return lines + [f"  note      {note}" for note in notes]


def _memory(n_bytes: int) -> str:
    """Memory as drivers count it."""
    return f"{n_bytes / GIB:.2f} GiB" if n_bytes >= GIB // 10 else f"{n_bytes / MIB:.2f} MiB"
