"""`make demo`: makes a small checkpoint, converts it, proves it, runs it in llama.cpp, and says what it saw."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from llama_cpp import LlamaCpp

PROMPT = (
    "<|start|>user<|message|>What is the weather like in the mountains today? There is snow on the northern side, and "
    "the wind is still strong. Please tell me whether the train leaves before noon.<|end|><|start|>assistant"
)


def step(*arguments: str) -> None:
    """Runs the command as a user would and shows it."""
    command = Path(sys.executable).with_name("gptoss-convert")
    print(f"\n$ gptoss-convert {shlex.join(arguments)}", flush=True)
    subprocess.run([str(command), *arguments], check=True)


def run_in_llama_cpp(path: Path) -> None:
    print(f"\nllama.cpp (xllamacpp) loads {path}", flush=True)
    model = LlamaCpp(path)
    print("the prompt is longer than the sliding window; the likeliest next tokens:")
    for candidate in model.next_tokens(PROMPT, 5):
        print(f"  {candidate.token_id:>4}  {candidate.text!r:<14} log-probability {candidate.log_prob:8.4f}")
    print(f"16 greedy tokens (random weights, so no sense): {model.generate(PROMPT, 16)!r}")


def main(directory: Path) -> None:
    checkpoint, gguf = directory / "tiny", directory / "tiny.gguf"
    step("make-demo", str(checkpoint))
    step("inspect", str(checkpoint))
    step("to-gguf", str(checkpoint), str(gguf))
    step("inspect", str(gguf))
    run_in_llama_cpp(gguf)
    print("\ndemo: converted, proven, and run")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
