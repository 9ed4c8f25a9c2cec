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

from ..checkpoint import Checkpoint, open_checkpoint
from ..demo import plan_demo
from ..plan import plan
from ..run import run
from ..targets.bf16 import Bf16Target
from ..targets.gguf import GgufTarget
from .faults import FAULTS, Fault
from .runners import Chosen
from .validate import validate

_LAYERS = 2


@dataclass(frozen=True)
class Seen:
    """How a fault showed: the first stage beyond its limit, and by how many times it was; "" if none was."""

    fault: str
    expected: str
    stage: str
    excess: float
    unseen: str = ""

    @property
    def holds(self) -> bool:
        """True if it was seen where it was made, or could not be."""
        return self.stage == self.expected or bool(self.unseen)


@contextmanager
def demo_checkpoint() -> Iterator[Checkpoint]:
    """A small synthetic model in a directory that goes away."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "demo"
        run(plan_demo(out, layers=_LAYERS), prove=False)
        yield open_checkpoint(out)


def see_faults(checkpoint: Checkpoint) -> list[Seen]:
    """How each named fault shows in the checkpoint, on the CPU."""
    return [_see(checkpoint, fault) for fault in FAULTS]


def _see(checkpoint: Checkpoint, fault: Fault) -> Seen:
    why = fault.unseen(checkpoint.config)
    if why:
        return Seen(fault.name, fault.stage, "", 0.0, why)
    found = validate(checkpoint, fault=fault)
    first = next((one for one in found.measures if one.excess > 1), None)
    return Seen(fault.name, fault.stage, first.stage if first else "", first.excess if first else 0.0)


def kernel_failures(checkpoint: Checkpoint, chosen: Chosen) -> list[str]:
    """What is not valid of the checkpoint in layouts that are read in different ways; empty if all is."""
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        targets = {
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
                failures.append(f"{name}: {found.worst.stage} is {found.worst.excess:.3g} times beyond rounding")
    return failures
