"""The commands that start a consumer on what was prepared."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .consumers import BF16, Way
from .fit import VLLM_SHARE, Setting
from .machines import CPU, Machine
from .memory import BATCHED, LLAMA_CPP, LM_STUDIO, MLX, OLLAMA, TRANSFORMERS, VLLM
from .modelfile import FILE_NAME
from .output import LM_STUDIO_MODELS, PUBLISHER, Output

# Double quotes only: a shell wraps the text in single ones. The directory is the first argument.
_TRANSFORMERS = (
    "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer{config_import}; "
    "path = sys.argv[1]; tokenizer = AutoTokenizer.from_pretrained(path); "
    'model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", {options}); '
    'inputs = tokenizer.apply_chat_template([{{"role": "user", "content": sys.argv[2]}}], add_generation_prompt=True, '
    'return_dict=True, return_tensors="pt").to(model.device); '
    "print(tokenizer.decode(model.generate(**inputs, max_new_tokens={new_tokens})[0]))"
)
_QUESTION = "Why is the sky blue?"
_NEW_TOKENS = 256


@dataclass(frozen=True)
class Command:
    """A command with what it is for; `environment` are variables that it needs."""

    purpose: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """The command as one types it into this system's shell."""
        variables = "".join(f"{name}={shlex.quote(value)} " for name, value in self.environment)
        if os.name == "nt":
            return subprocess.list2cmdline(self.arguments)
        return variables + shlex.join(self.arguments)


def commands(
    setting: Setting, output: Output, machine: Machine | None, way: Way | None, *, wired_mib: int | None = None
) -> list[Command]:
    """What to type, in order.

    Args:
        setting: how it is to be started.
        output: what was prepared.
        machine: where it will run, if that is known.
        way: how the experts run there, if that is known.
        wired_mib: what the GPU of a Mac must be allowed first, if its limit is too low.
    """
    first = [] if wired_mib is None else [_wired_limit(wired_mib)]
    if setting.consumer == TRANSFORMERS:
        return [*first, _transformers(output, way)]
    starts: dict[str, Callable[[Setting, Output, Machine | None], list[Command]]] = {
        LLAMA_CPP: _llama_cpp,
        OLLAMA: _ollama,
        LM_STUDIO: _lm_studio,
        VLLM: _vllm,
        MLX: _mlx,
    }
    return [*first, *starts[setting.consumer](setting, output, machine)]


def _wired_limit(mib: int) -> Command:
    return Command("let the GPU have enough", ("sudo", "sysctl", f"iogpu.wired_limit_mb={mib}"))


def _llama_cpp(setting: Setting, output: Output, machine: Machine | None) -> list[Command]:
    layers = "0" if machine is not None and machine.family == CPU else "99"
    options = ["-c", str(setting.context), "-np", "1", "-ngl", layers, "--jinja"]
    if setting.cpu_layers:
        options += ["--n-cpu-moe", str(setting.cpu_layers)]
    if setting.kv_type != "f16":
        options += ["-fa", "on", "-ctk", setting.kv_type, "-ctv", setting.kv_type]
    return [Command("serve on http://127.0.0.1:8080", ("llama-server", "-m", str(output.path), *options))]


def _ollama(setting: Setting, output: Output, machine: Machine | None) -> list[Command]:  # noqa: ARG001 - as the others
    directory = output.texts[0][0].parent if output.texts else output.path.parent
    return [
        Command("make the model", ("ollama", "create", output.name.lower(), "-f", str(directory / FILE_NAME))),
        Command("chat", ("ollama", "run", output.name.lower())),
    ]


def _lm_studio(setting: Setting, output: Output, machine: Machine | None) -> list[Command]:  # noqa: ARG001
    key = f"{PUBLISHER}/{output.name}"
    load = Command("load it", ("lms", "load", key, "--context-length", str(setting.context), "--gpu", "max"))
    if (Path.home() / LM_STUDIO_MODELS) in output.path.resolve().parents:
        return [load]
    link = ("lms", "import", str(output.path), "--user-repo", key, "--symbolic-link", "--yes")
    return [Command("put it among LM Studio's models", link), load]


def _vllm(setting: Setting, output: Output, machine: Machine | None) -> list[Command]:  # noqa: ARG001
    options = ["--served-model-name", output.name, "--max-model-len", str(setting.context)]
    options += ["--max-num-batched-tokens", str(BATCHED), "--gpu-memory-utilization", f"{VLLM_SHARE / 100:.2f}"]
    if setting.cards > 1:
        options += ["--tensor-parallel-size", str(setting.cards)]
    return [Command("serve on http://127.0.0.1:8000", ("vllm", "serve", str(output.path), *options))]


def _transformers(output: Output, way: Way | None) -> Command:
    if way is not None and way.experts == BF16:
        filled = {"config_import": ", Mxfp4Config", "options": "quantization_config=Mxfp4Config(dequantize=True)"}
    else:
        filled = {"config_import": "", "options": 'device_map="auto"'}
    code = _TRANSFORMERS.format(new_tokens=_NEW_TOKENS, **filled)
    return Command("ask one question", ("python", "-c", code, str(output.path), _QUESTION))


def _mlx(setting: Setting, output: Output, machine: Machine | None) -> list[Command]:  # noqa: ARG001
    ask = ("mlx_lm.generate", "--model", str(output.path), "--prompt", _QUESTION, "--max-tokens", str(_NEW_TOKENS))
    return [
        Command("ask one question", ask),
        Command("serve on http://127.0.0.1:8080", ("mlx_lm.server", "--model", str(output.path), "--port", "8080")),
    ]
