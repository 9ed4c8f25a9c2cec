"""Conversions of one checkpoint from layout to layout, each way made once, with the command line that users have."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from command_line import command


@dataclass(frozen=True)
class Step:
    """How a layout is written: the command, its options, what is added to the name.

    `opened` is what is added to the name of the file that is opened afterwards, if that is another.
    """

    command: str
    options: tuple[str, ...] = ()
    suffix: str = ""
    opened: str = ""


STEPS: dict[str, Step] = {
    "hf": Step("to-mxfp4", ("--shard-plan", "1M")),
    "original": Step("to-mxfp4", ("--layout", "original")),
    "gguf": Step("to-gguf", suffix=".gguf"),
    "ollama-legacy": Step("to-gguf", ("--dialect", "ollama-legacy"), ".gguf"),
    "mlx": Step("to-mlx"),
    "metal": Step("to-metal", suffix=".bin"),
    "bf16": Step("to-bf16"),
    "original-shards": Step("to-mxfp4", ("--layout", "original", "--shard-plan", "1M")),
    "gguf-shards": Step("to-gguf", ("--split-max-size", "1M"), ".gguf", "-00001-of-00004.gguf"),
    "gguf-bf16": Step("to-gguf", ("--experts", "bf16"), ".gguf"),
    "gguf-f16": Step("to-gguf", ("--experts", "f16"), ".gguf"),
    "gguf-f32": Step("to-gguf", ("--experts", "f32", "--type", "f32"), ".gguf"),
}
DECODED = ("bf16", "gguf-bf16", "gguf-f16", "gguf-f32")

LAYOUTS = ["original", "gguf", "ollama-legacy", "mlx", "metal", "bf16"]
SINGLE = [(layout,) for layout in STEPS if layout != "hf"]
PAIRS = list(product(LAYOUTS, repeat=2))


def by_steps(steps: tuple[str, ...]) -> str:
    """The id of a test of this chain."""
    return " to ".join(("hf", *steps, "hf"))


@dataclass
class Ways:
    """What becomes of the HF directory `start`, step by step; all outputs bear its name, which GGUF files keep.

    `options` are given to every command.
    """

    start: Path
    directory: Path
    options: tuple[str, ...] = ()
    _reports: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def path(self, *steps: str) -> Path:
        """What the last step wrote; to be read only."""
        if not steps:
            return self.start
        step = STEPS[steps[-1]]
        out = self.directory / "+".join(steps) / self.start.name
        if steps not in self._reports:
            out.parent.mkdir()
            self._reports[steps] = self._convert(*steps, out=out.with_name(out.name + step.suffix))
        return out.with_name(out.name + (step.opened or step.suffix))

    def report(self, *steps: str) -> dict[str, Any]:
        """What the last step said of itself."""
        self.path(*steps)
        return self._reports[steps]

    def _convert(self, *steps: str, out: Path) -> dict[str, Any]:
        """Runs the last step with the options that the layout before it asks for."""
        *before, target = steps
        source = before[-1] if before else "hf"
        options: list[str | Path] = [*STEPS[target].options, *self.options]
        if source.startswith("original"):
            options += ["--tokenizer", self.start]
        if source == "metal" and target != "metal":
            options += ["--pad-vocab"]
        if source in DECODED and target not in DECODED:
            options += ["--like", self.start]
        outcome = command(STEPS[target].command, self.path(*before), out, *options, "--json")
        assert outcome.code == 0, f"{' to '.join(('hf', *steps))}: {outcome.err or outcome.out}"
        return outcome.json
