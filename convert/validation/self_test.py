"""Proves on this machine that validation is right and that it can fail.

A small synthetic model must be valid in every layout that the side under test reads in its own way, and every named
fault must be seen in it, in the stage where it is made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint import Checkpoint, open_checkpoint
from ..demo import plan_demo
from ..plan import plan
from ..progress import Progress
from ..run import run
from ..targets.bf16 import Bf16Target
from ..targets.gguf import GgufTarget
from ..weights import CheckpointWeights
from .faults import FAULTS, Fault
from .runners import Chosen
from .validate import validate

_LAYERS = 2


@dataclass(frozen=True)
class Seen:
    """How a fault showed.

    Attributes:
        fault: its name.
        expected: the stage that must be the first to show it.
        stage: the first stage beyond its limit; "" if none was.
        figure, excess: which figure of that stage was beyond its limit, and how many times it was the limit.
        where: the explanation of that stage.
        unseen: why it cannot be seen in the model; "" if it can.
    """

    fault: str
    expected: str
    stage: str = ""
    figure: str = ""
    excess: float = 0.0
    where: str = ""
    unseen: str = ""

    @property
    def holds(self) -> bool:
        """True if it was seen where it was made, or could not be."""
        return self.stage == self.expected or bool(self.unseen)


@contextmanager
def demo_checkpoint() -> Iterator[Checkpoint]:
    """A small synthetic model in a directory that goes away; torch keeps to one thread, which is faster for it."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory) / "demo"
            run(plan_demo(out, layers=_LAYERS), prove=False)
            yield open_checkpoint(out)
    finally:
        torch.set_num_threads(n_threads)


def see_faults(checkpoint: Checkpoint, progress: Progress | None = None) -> list[Seen]:
    """How each named fault shows in the checkpoint, on the CPU."""
    progress, found = progress or Progress(), []
    with progress.during("making faults", len(FAULTS) * checkpoint.n_bytes):
        for fault in FAULTS:
            found.append(see_fault(checkpoint, fault))
            progress.advance(checkpoint.n_bytes, fault.name)
    return found


def see_fault(checkpoint: Checkpoint, fault: Fault) -> Seen:
    """How one fault shows."""
    with CheckpointWeights(checkpoint) as weights:
        why = fault.unseen(checkpoint.config, weights)
    if why:
        return Seen(fault.name, fault.stage, unseen=why)
    found = validate(checkpoint, fault=fault)
    first = next((one for one in found.measures if one.excess > 1), None)
    if first is None:
        return Seen(fault.name, fault.stage)
    where = first.cause.text if first.cause else ""
    return Seen(fault.name, fault.stage, first.stage, first.figure, first.excess, where)


def kernel_failures(checkpoint: Checkpoint, chosen: Chosen) -> list[str]:
    """What is not valid of the checkpoint in layouts that are read in different ways; empty if all is."""
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        targets: dict[str, GgufTarget | Bf16Target] = {
            "gguf": GgufTarget(Path(directory) / "demo.gguf"),
            "bf16": Bf16Target(Path(directory) / "bf16"),
        }
        opened = {"hf": checkpoint}
        for name, target in targets.items():
            run(plan(checkpoint, target), prove=False)
            opened[name] = open_checkpoint(target.out)
        for name, one in opened.items():
            found = validate(one, layers=[0], make_runner=chosen.make)
            if not found.holds:
                worst = found.worst
                failures.append(f"{name}: {worst.name} is {worst.excess:,.3g} times beyond rounding")
    return failures
