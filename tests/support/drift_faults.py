"""How each named fault of validation shows in `drift`, with default thresholds; run as a program, prints the table.

python tests/support/drift_faults.py [MARKDOWN]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gptoss_convert.convert.checkpoint import Checkpoint, open_checkpoint
from gptoss_convert.convert.demo import plan_demo
from gptoss_convert.convert.drift.layers import ROUNDING, compare_layers
from gptoss_convert.convert.drift.lockstep import Injection
from gptoss_convert.convert.drift.logits import ROUNDING_KL, compare_logits
from gptoss_convert.convert.drift.prompts import Prompts, make_prompts
from gptoss_convert.convert.run import run
from gptoss_convert.convert.validation.faults import FAULTS, Fault, FaultyWeights
from gptoss_convert.convert.weights import CheckpointWeights

N_TOKENS = 96
"""Of each prompt: three windows of `tiny`."""


@dataclass(frozen=True)
class Shown:
    """How a fault shows.

    Attributes:
        fault: its name.
        unseen: why it cannot be seen in this model; "" if it can.
        part, layer: where depth `layers` says that it begins; "" if it says nothing.
        times_rounding: the relative error there in units of its threshold.
        times_kl: the mean KL at depth `logits` in units of its threshold.
    """

    fault: str
    unseen: str = ""
    part: str = ""
    layer: int | None = None
    times_rounding: float = 0.0
    times_kl: float = 0.0

    @property
    def depth(self) -> str:
        """The cheapest depth that catches it; "" if none does."""
        return "layers" if self.part else "logits" if self.times_kl > 1 else ""

    @property
    def where(self) -> str:
        """The figure that catches it first."""
        if not self.part:
            return "mean KL"
        return self.part if self.layer is None else f"{self.part}, layer {self.layer}"


def injection(fault: Fault) -> Injection:
    """The fault as something that B computes."""
    return Injection(fault.config, fault.arithmetic, lambda weights: FaultyWeights(weights, fault))


def show(fault: Fault, checkpoint: Checkpoint, prompts: Prompts) -> Shown:
    """How the fault shows in a copy of the checkpoint that has nothing else wrong."""
    why = unseen(fault, checkpoint)
    if why:
        return Shown(fault.name, unseen=why)
    first = at_layers(fault, checkpoint, prompts)
    kl = at_logits(fault, checkpoint, prompts)
    if first is None:
        return Shown(fault.name, times_kl=kl)
    part, layer, error = first
    return Shown(fault.name, "", part, layer, error / ROUNDING, kl)


def unseen(fault: Fault, checkpoint: Checkpoint) -> str:
    """Why the fault cannot be seen in the checkpoint; "" if it can."""
    with CheckpointWeights(checkpoint) as weights:
        return fault.unseen(checkpoint.config, weights)


def at_layers(fault: Fault, checkpoint: Checkpoint, prompts: Prompts) -> tuple[str, int | None, float] | None:
    """Where depth `layers` says that the fault begins, and the relative error there."""
    found = compare_layers(checkpoint, checkpoint, prompts=prompts, noise=False, inject=injection(fault))
    return found.first


def at_logits(fault: Fault, checkpoint: Checkpoint, prompts: Prompts) -> float:
    """The mean KL at depth `logits` in units of its threshold."""
    found = compare_logits(checkpoint, checkpoint, prompts=prompts, noise=False, inject=injection(fault))
    return found.b.mean_kl / ROUNDING_KL


def show_all(checkpoint: Checkpoint) -> Iterator[Shown]:
    """Every fault in turn."""
    prompts = make_prompts(checkpoint, checkpoint, n_tokens=N_TOKENS)
    for fault in FAULTS:
        yield show(fault, checkpoint, prompts)


def markdown(found: list[Shown]) -> str:
    """The table of docs/drift.md."""
    lines = ["| fault | caught at depth | by | times its threshold | mean KL, times its threshold |"]
    lines.append("|---|---|---|---|---|")
    for one in found:
        if one.unseen:
            lines.append(f"| {one.fault} | cannot be seen: {one.unseen} | | | |")
        else:
            cells = one.fault, one.depth or "NOT SEEN", one.where, _times(one.times_rounding), _times(one.times_kl)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _times(factor: float) -> str:
    """ "3,200"; "" if it is none, and with a power of ten from a million on."""
    if factor >= 1e6:
        digit, power = f"{factor:.0e}".split("e+")
        return f"{digit} × 10^{int(power)}"
    return f"{float(f'{factor:.2g}'):,.0f}" if factor else ""


def main(out: str | None) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tiny"
        run(plan_demo(path), prove=False)
        text = markdown(list(show_all(open_checkpoint(path))))
    if out is None:
        print(text, end="")
    else:
        Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [None]))
